//! Delivery of answers to the peer.
//!
//! hyper takes the next part of an answer, or drops the answer, only after it has passed on the previous part: over
//! HTTP/1.1 when the socket has capacity, over HTTP/2 when the stream's window is open. This includes the last part:
//! over HTTP/2 hyper keeps it until the window opens. So if a part was taken and nothing follows for too long, the peer
//! does not read, and its connection or stream is ended. Over HTTP/2 each stream is watched separately, because pings
//! and other streams continue while one is stalled. Once the answer is dropped, the rest of it fits into buffers, and
//! the connection is idle from then on: [`super::watch`].
//!
//! Over HTTP/2 a window of one byte lets hyper pass on a whole part, which then waits in a buffer that is not watched.
//! So the last byte of an answer is a part of its own: it is passed on only when the window is large enough for
//! everything before it.

use super::watch::OpenRequest;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Largest part of an answer that is passed on at once, so that little is copied for a peer that does not read.
const PART_BYTES_MAX: usize = 32 * 1024;

tokio::task_local! {
    /// The delivery of the HTTP/2 stream that this task answers.
    static STREAM: Arc<Delivery>;
}

/// Delivery progress of the answer of a connection or a stream.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// When its latest part was taken, until hyper polls for the next one or drops the answer.
    taken_at: Mutex<Option<Instant>>,
}

impl Delivery {
    fn set(&self, taken_at: Option<Instant>) {
        *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner) = taken_at;
    }

    fn taken_at(&self) -> Option<Instant> {
        *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a part has not been passed on for this long.
    pub(super) async fn stalled(&self, longest: Duration) {
        loop {
            let now = Instant::now();
            match self.taken_at().map(|taken_at| taken_at + longest) {
                Some(until) if until <= now => return,
                until => sleep_until(until.unwrap_or(now + longest)).await,
            }
        }
    }
}

/// Runs the streams of HTTP/2 connections, and resets those whose peer does not read.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    write: Duration,
}

impl Streams {
    /// Streams whose parts may wait for their peer for at most this long.
    pub(super) fn new(write: Duration) -> Self {
        Self { write }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (write, delivery) = (self.write, Arc::<Delivery>::default());
        let stream = STREAM.scope(delivery.clone(), stream);
        tokio::spawn(async move {
            tokio::select! {
                _ = stream => {}
                () = delivery.stalled(write) => tracing::debug!("a stream was reset: its peer does not read"),
            }
        });
    }
}

/// The body of an answer, passed on in parts; its request is open until it is dropped.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Body,
    /// The rest of a part that was too large.
    rest: Bytes,
    delivery: Arc<Delivery>,
    /// Whether it is the answer of an HTTP/2 stream.
    is_of_stream: bool,
    _open: OpenRequest,
}

impl ResponseBody {
    /// The answer to an open request; to be called on the task that answers it. Without a stream, it is the answer of
    /// the whole connection.
    pub(super) fn new(body: Body, open: OpenRequest, connection: &Arc<Delivery>) -> Self {
        let stream = STREAM.try_with(Arc::clone).ok();
        let is_of_stream = stream.is_some();
        let delivery = stream.unwrap_or_else(|| connection.clone());
        Self { body, rest: Bytes::new(), delivery, is_of_stream, _open: open }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let left = self.rest.len();
        let is_last = left > 1 && left <= PART_BYTES_MAX && self.is_of_stream && self.body.is_end_stream();
        let part = self.rest.split_to(if is_last { left - 1 } else { left.min(PART_BYTES_MAX) });
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.delivery.set(None);
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = self.poll_part(cx);
        self.delivery.set(matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::{ConnectionTimeouts, Watch};
    use super::*;
    use futures::future::poll_fn;

    #[tokio::test]
    async fn a_large_answer_comes_in_parts_and_whole() {
        let watch = Watch::new(ConnectionTimeouts { head: Duration::ZERO, idle: Duration::ZERO });
        let delivery = Arc::<Delivery>::default();
        let sent: Vec<u8> = (0..PART_BYTES_MAX * 2 + 7).map(|at| at as u8).collect();
        let mut answer = ResponseBody::new(Body::from(sent.clone()), watch.open(), &delivery);
        let (mut got, mut parts) = (Vec::new(), Vec::new());
        assert_eq!(answer.size_hint().exact(), Some(sent.len() as u64));
        while !answer.is_end_stream() {
            let frame = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap();
            got.extend_from_slice(frame.data_ref().unwrap());
            parts.push(frame.data_ref().unwrap().len());
            assert_eq!(answer.size_hint().exact(), Some((sent.len() - got.len()) as u64));
        }
        assert_eq!((got, parts), (sent, vec![PART_BYTES_MAX, PART_BYTES_MAX, 7]));
        assert!(delivery.taken_at().is_some(), "the last part may still wait for the peer");
        assert_eq!(watch.idle_until(), None, "handed over when it is dropped");
        drop(answer);
        assert_eq!(delivery.taken_at(), None);
        assert!(watch.idle_until().is_some());
    }

    #[tokio::test]
    async fn the_last_byte_of_a_stream_is_a_part_of_its_own() {
        let watch = Watch::new(ConnectionTimeouts { head: Duration::ZERO, idle: Duration::ZERO });
        for (bytes, expected) in [
            (1, &[1][..]),
            (2, &[1, 1]),
            (100, &[99, 1]),
            (PART_BYTES_MAX, &[PART_BYTES_MAX - 1, 1]),
            (PART_BYTES_MAX + 1, &[PART_BYTES_MAX, 1]),
            (PART_BYTES_MAX + 9, &[PART_BYTES_MAX, 8, 1]),
        ] {
            let body = Body::from(vec![7; bytes]);
            let mut answer =
                STREAM.sync_scope(Arc::default(), || ResponseBody::new(body, watch.open(), &Arc::default()));
            let mut parts = Vec::new();
            while !answer.is_end_stream() {
                let frame = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap();
                parts.push(frame.data_ref().unwrap().len());
            }
            assert_eq!(parts, expected, "{bytes}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_body_waits_for_no_peer() {
        let watch = Watch::new(ConnectionTimeouts { head: Duration::ZERO, idle: Duration::ZERO });
        let delivery = Arc::<Delivery>::default();
        let mut answer = ResponseBody::new(Body::empty(), watch.open(), &delivery);
        assert!(answer.is_end_stream() && delivery.taken_at().is_none());
        assert!(poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.is_none());
        assert_eq!(delivery.taken_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_not_passed_on_stalls_a_stream_and_waiting_for_the_next_one_does_not() {
        let (delivery, longest) = (Delivery::default(), Duration::from_secs(30));
        let begun = Instant::now();
        let other = async {
            for _ in 0..10 {
                delivery.set(Some(Instant::now()));
                tokio::time::sleep(Duration::from_secs(29)).await;
                delivery.set(None);
                tokio::time::sleep(Duration::from_secs(290)).await;
            }
            delivery.set(Some(Instant::now()));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = delivery.stalled(longest) => {}
            () = other => {}
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(10 * 319 + 30));
    }
}
