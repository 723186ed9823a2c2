//! Bytes in, whole lines out. Works on bytes alone: NULs, other encodings and characters split between two
//! reads come out exactly as they went in. Refuses to hold more than one line's limit of unfinished text.

use memchr::{memchr, memrchr};

/// The longest piece, its newline included. A longer line is cut into several.
pub const LINE_LIMIT: usize = 64 * 1024;

/// Unused memory that a stream keeps for its next unfinished line.
const KEPT_CAPACITY: usize = 4 * 1024;

/// A line, or a part of one that is over the limit, or ([`LineFramer::push_runs`]) several whole lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The bytes, with their newline if they have one. All pieces joined are the stream.
    pub bytes: &'a [u8],
    /// The limit ended it; the line goes on in the next piece.
    pub cut: bool,
    /// It goes on with the line of the piece before.
    pub continued: bool,
}

impl<'a> Piece<'a> {
    /// Without the newline.
    pub fn text(&self) -> &'a [u8] {
        self.bytes.strip_suffix(b"\n").unwrap_or(self.bytes)
    }
}

/// The bytes of all pieces that one push gave, in order: first `head`, then `body`; without what
/// [`LineFramer::show`] gave out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// What began in an earlier push.
    pub head: &'a [u8],
    /// What lay whole within the pushed bytes.
    pub body: &'a [u8],
}

/// Splits one stream into lines. Lines that lie within a pushed chunk are not copied.
#[derive(Debug)]
pub struct LineFramer {
    /// The unfinished line, always shorter than `limit`.
    held: Vec<u8>,
    /// Pieces of the latest push that began in `held`; at most one pushed chunk longer than `limit`.
    head: Vec<u8>,
    continued: bool,
    limit: usize,
    /// How many of the held bytes [`LineFramer::show`] gave out already, and of those of `head`.
    shown: usize,
    shown_of_head: usize,
}

impl Default for LineFramer {
    fn default() -> LineFramer {
        LineFramer::with_limit(LINE_LIMIT)
    }
}

impl LineFramer {
    /// A framer that cuts at another limit than [`LINE_LIMIT`], at least 8 bytes.
    pub fn with_limit(limit: usize) -> LineFramer {
        let (held, head, limit) = (Vec::new(), Vec::new(), limit.max(8));
        LineFramer { held, head, continued: false, limit, shown: 0, shown_of_head: 0 }
    }

    /// Takes the next bytes of the stream and hands every piece that they complete to `sink`.
    pub fn push<'a>(&'a mut self, bytes: &'a [u8], sink: &mut dyn FnMut(Piece<'_>)) -> Batch<'a> {
        self.begin();
        let mut at = 0;
        while !self.held.is_empty() && at < bytes.len() {
            at += self.complete_held(&bytes[at..], sink);
        }
        let start = at;
        while let Some((len, cut)) = piece_len(&bytes[at..], self.limit) {
            sink(Piece { bytes: &bytes[at..at + len], cut, continued: self.continued });
            self.continued = cut;
            at += len;
        }
        self.held.extend_from_slice(&bytes[at..]);
        Batch { head: &self.head[self.shown_of_head..], body: &bytes[start..at] }
    }

    /// The same for who needs no single lines: those that lie whole within the pushed bytes come together, in
    /// one piece. Nothing then costs anything by the line.
    pub fn push_runs<'a>(&'a mut self, bytes: &'a [u8], sink: &mut dyn FnMut(Piece<'_>)) -> Batch<'a> {
        self.begin();
        let mut at = 0;
        while !self.held.is_empty() && at < bytes.len() {
            at += self.complete_held(&bytes[at..], sink);
        }
        let start = at;
        // What cannot reach the limit needs no look at each line.
        while self.continued || bytes.len() - at >= self.limit {
            let Some((len, cut)) = piece_len(&bytes[at..], self.limit) else { break };
            sink(Piece { bytes: &bytes[at..at + len], cut, continued: self.continued });
            self.continued = cut;
            at += len;
        }
        if let Some(last) = memrchr(b'\n', &bytes[at..]) {
            sink(Piece { bytes: &bytes[at..=at + last], cut: false, continued: false });
            at += last + 1;
        }
        self.held.extend_from_slice(&bytes[at..]);
        Batch { head: &self.head[self.shown_of_head..], body: &bytes[start..at] }
    }

    /// The stream ended: hands out the unfinished line, if there is one.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Piece<'_>)) -> Batch<'_> {
        self.begin();
        self.shown_of_head = std::mem::take(&mut self.shown);
        std::mem::swap(&mut self.held, &mut self.head);
        if !self.head.is_empty() {
            sink(Piece { bytes: &self.head, cut: false, continued: self.continued });
        }
        self.continued = false;
        Batch { head: &self.head[self.shown_of_head..], body: &[] }
    }

    /// The unfinished line, or what has come of it since it was last shown: for who wants the bytes, and no lines.
    pub fn show(&mut self) -> &[u8] {
        let from = std::mem::replace(&mut self.shown, self.held.len());
        &self.held[from..]
    }

    /// Bytes of the unfinished line that were not shown.
    pub fn unshown(&self) -> usize {
        self.held.len() - self.shown
    }

    fn begin(&mut self) {
        empty(&mut self.head);
        self.shown_of_head = 0;
    }

    /// Bytes of the unfinished line; less than the limit.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Memory in use, in bytes.
    pub fn capacity(&self) -> usize {
        self.held.capacity() + self.head.capacity()
    }

    /// Moves bytes to the unfinished line until it is a piece or they run out; says how many.
    fn complete_held(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Piece<'_>)) -> usize {
        let window = &bytes[..bytes.len().min(self.limit - self.held.len())];
        let taken = memchr(b'\n', window).map_or(window.len(), |newline| newline + 1);
        self.held.extend_from_slice(&window[..taken]);
        if let Some((len, cut)) = piece_len(&self.held, self.limit) {
            sink(Piece { bytes: &self.held[..len], cut, continued: self.continued });
            self.continued = cut;
            self.head.extend_from_slice(&self.held[..len]);
            self.held.drain(..len);
            let shown = self.shown.min(len);
            self.shown -= shown;
            self.shown_of_head += shown;
            if self.held.is_empty() {
                empty(&mut self.held);
            }
        }
        taken
    }
}

/// Lines taken apart into runs of whole ones, each as short as it can be with this many bytes or more.
pub fn runs(lines: &[u8], least: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let from = least.clamp(1, rest.len().max(1)) - 1;
        let newline = memchr(b'\n', rest.get(from..)?);
        let (run, after) = rest.split_at(newline.map_or(rest.len(), |newline| from + newline + 1));
        rest = after;
        (!run.is_empty()).then_some(run)
    })
}

/// Length of the piece that `bytes` begin with, and whether the limit ends it.
fn piece_len(bytes: &[u8], limit: usize) -> Option<(usize, bool)> {
    let window = &bytes[..bytes.len().min(limit)];
    match memchr(b'\n', window) {
        Some(newline) => Some((newline + 1, false)),
        None if window.len() == limit => Some((before_split_character(window), true)),
        None => None,
    }
}

/// Where to cut so that a UTF-8 character which the end would split stays whole.
fn before_split_character(bytes: &[u8]) -> usize {
    let end = bytes.len();
    for back in 1..=3.min(end) {
        let needed = match bytes[end - back] {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x00..=0x7f => 1,
        };
        return if needed > back { end - back } else { end };
    }
    end
}

/// Clears a buffer, and gives its memory back if an unusual line made it large.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_CAPACITY {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Vec<u8>, bool, bool);

    #[test]
    fn runs_are_of_whole_lines_and_as_long_as_was_asked_for() {
        let taken = |text: &'static str, least| -> Vec<&str> {
            runs(text.as_bytes(), least).map(|run| std::str::from_utf8(run).unwrap()).collect()
        };
        assert_eq!(taken("ab\nc\n\nlong line\nd\n", 4), ["ab\nc\n", "\nlong line\n", "d\n"]);
        assert_eq!(taken("ab\ncd\n", 3), ["ab\n", "cd\n"]);
        assert_eq!(taken("ab\ncd\n", 0), ["ab\n", "cd\n"]);
        assert_eq!(taken("ab\ncd", 100), ["ab\ncd"]);
        assert_eq!(taken("", 4), [""; 0]);
    }

    /// Pieces, and the joined batches, of a stream pushed in these chunks.
    fn split(limit: usize, chunks: &[&[u8]]) -> (Vec<Owned>, Vec<u8>) {
        let mut framer = LineFramer::with_limit(limit);
        let (mut pieces, mut joined) = (Vec::new(), Vec::new());
        let mut sink = |piece: Piece<'_>| pieces.push((piece.bytes.to_vec(), piece.cut, piece.continued));
        for chunk in chunks {
            let batch = framer.push(chunk, &mut sink);
            joined.extend_from_slice(batch.head);
            joined.extend_from_slice(batch.body);
            assert!(framer.held() < limit);
        }
        joined.extend_from_slice(framer.finish(&mut sink).head);
        (pieces, joined)
    }

    /// The same by runs, each taken apart again.
    fn split_by_runs(limit: usize, chunks: &[&[u8]]) -> (Vec<Owned>, Vec<u8>) {
        let mut framer = LineFramer::with_limit(limit);
        let (mut pieces, mut joined) = (Vec::new(), Vec::new());
        let mut sink = |piece: Piece<'_>| {
            let lines: Vec<&[u8]> = piece.bytes.split_inclusive(|byte| *byte == b'\n').collect();
            assert!(lines.len() == 1 || !piece.cut && !piece.continued && piece.bytes.ends_with(b"\n"));
            pieces.extend(lines.iter().map(|line| (line.to_vec(), piece.cut, piece.continued)));
        };
        for chunk in chunks {
            let batch = framer.push_runs(chunk, &mut sink);
            joined.extend_from_slice(batch.head);
            joined.extend_from_slice(batch.body);
            assert!(framer.held() < limit);
        }
        joined.extend_from_slice(framer.finish(&mut sink).head);
        (pieces, joined)
    }

    #[test]
    fn a_line_split_between_reads_comes_out_once_and_whole() {
        let (pieces, _) = split(100, &[b"ab", b"c\nde", b"", b"f", b"\n\nend"]);
        let texts: Vec<_> = pieces.iter().map(|piece| piece.0.as_slice()).collect();
        assert_eq!(texts, [&b"abc\n"[..], b"def\n", b"\n", b"end"]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_marked() {
        let (pieces, _) = split(8, &[b"0123456789abcdefXY\nz\n"]);
        let expected: [Owned; 4] = [
            (b"01234567".to_vec(), true, false),
            (b"89abcdef".to_vec(), true, true),
            (b"XY\n".to_vec(), false, true),
            (b"z\n".to_vec(), false, false),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        let (pieces, _) = split(8, &["1234567é1234567".as_bytes()]);
        assert_eq!(pieces[0].0, b"1234567");
        assert_eq!(pieces[1].0, "é123456".as_bytes());
    }

    #[test]
    fn an_endless_line_needs_no_more_memory_than_two_pieces() {
        let mut framer = LineFramer::default();
        let chunk = vec![0; 50_000];
        for _ in 0..2000 {
            framer.push(&chunk, &mut |piece| assert!(piece.bytes.len() <= LINE_LIMIT));
            assert!(framer.capacity() <= 6 * LINE_LIMIT, "{}", framer.capacity());
        }
    }

    #[test]
    fn memory_of_a_long_line_is_given_back() {
        let mut framer = LineFramer::default();
        framer.push(&[b'x'; 60_000], &mut |_| {});
        framer.push(b"\n", &mut |_| {});
        framer.push(b"short\n", &mut |_| {});
        assert!(framer.capacity() <= 2 * KEPT_CAPACITY);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines_and_every_byte(
            stream in prop::collection::vec(prop_oneof![
                3 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(0xc3), 1 => Just(0xa9), 1 => Just(0xf0), 1 => any::<u8>()
            ], 0..300),
            cuts in prop::collection::vec(0usize..300, 0..20),
            limit in 8usize..40,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let (pieces, joined) = split(limit, &chunks);
            prop_assert_eq!(&pieces, &split(limit, &[&stream]).0);
            prop_assert_eq!(&split_by_runs(limit, &chunks), &(pieces.clone(), joined.clone()));
            prop_assert_eq!(&joined, &stream);
            prop_assert_eq!(pieces.concat_bytes(), &stream[..]);
            prop_assert_eq!(shown_between(limit, &chunks), (pieces, stream));
        }
    }

    /// As [`split`], where every other push is followed by a look at the unfinished line.
    fn shown_between(limit: usize, chunks: &[&[u8]]) -> (Vec<Owned>, Vec<u8>) {
        let mut framer = LineFramer::with_limit(limit);
        let (mut pieces, mut joined) = (Vec::new(), Vec::new());
        let mut sink = |piece: Piece<'_>| pieces.push((piece.bytes.to_vec(), piece.cut, piece.continued));
        for (number, chunk) in chunks.iter().enumerate() {
            let batch = framer.push(chunk, &mut sink);
            joined.extend_from_slice(batch.head);
            joined.extend_from_slice(batch.body);
            if number % 2 == 0 {
                joined.extend_from_slice(framer.show());
                assert_eq!(framer.unshown(), 0);
            }
        }
        joined.extend_from_slice(framer.finish(&mut sink).head);
        (pieces, joined)
    }

    trait ConcatBytes {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl ConcatBytes for Vec<Owned> {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|piece| piece.0.clone()).collect()
        }
    }
}
