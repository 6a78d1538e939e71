//! What the driver hears of a page stream's thread that panics, which can't tell it itself.

use crossbeam_channel::Sender;

use crate::error::Cause;

/// Held by a thread as long as it works; says nothing unless the thread panics.
pub(crate) struct LastWord<News, F: Fn(Cause) -> News> {
    news: Sender<News>,
    failed: F,
}

impl<News, F: Fn(Cause) -> News> LastWord<News, F> {
    /// `failed` makes the news of the thread's failure.
    pub(crate) fn new(news: Sender<News>, failed: F) -> Self {
        Self { news, failed }
    }
}

impl<News, F: Fn(Cause) -> News> Drop for LastWord<News, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = Cause::Host("a page stream's thread panicked".into());
            // The driver may have gone; then nobody needs to know.
            let _ = self.news.send((self.failed)(cause));
        }
    }
}
