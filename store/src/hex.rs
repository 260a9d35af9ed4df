//! Bytes as hexadecimal digits, for what people compare and copy.

/// A text that is not so many hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} hexadecimal digits are wanted")]
pub(crate) struct NotHex {
    wanted: usize,
}

/// Two digits for each byte, lower case.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
}

/// The bytes that a text of exactly so many digits names, in either case.
pub(crate) fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotHex> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let wrong = NotHex { wanted: 2 * N };
    let digits = digits.filter(|digits| digits.len() == 2 * N).ok_or(wrong)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_and_nothing_else_does() {
        assert_eq!(encode(&[0x00, 0x9a, 0xff]), "009aff");
        assert_eq!(decode("009aFF"), Ok([0x00, 0x9a, 0xff]));
        for bad in ["", "009af", "009aff0", "+09aff", "0x9aff", "ä09aff"] {
            assert_eq!(decode::<3>(bad), Err(NotHex { wanted: 6 }), "{bad}");
        }
    }
}
