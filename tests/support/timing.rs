//! Bounds in time: whatever a test waits for has one, and says what it waited for.

use std::time::Duration;

/// Waits for something, but not for longer than `limit`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(limit, future).await;
    in_time.unwrap_or_else(|_| panic!("after {limit:?}, still waiting for {what}"))
}
