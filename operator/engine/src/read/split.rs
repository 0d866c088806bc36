//! Objects out of a stream of JSON, one at a time: the items of a list as its page comes in, and the object of each watch
//! event. Nothing is parsed here and nothing nests, so what one object holds is no matter of another.

/// Largest part of an object that is kept, in bytes. The API server stores 1.5 MiB; as JSON that is up to six times as
/// much, where every character is escaped.
const LARGEST: usize = 16 * 1024 * 1024;
/// Largest frame: what is left of a page or an event without the objects in it.
const LARGEST_FRAME: usize = 64 * 1024;

/// What ends at a byte of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An object: [`Splitter::item`].
    Item,
    /// A page or an event: [`Splitter::frame`].
    Frame,
}

/// Why a stream cannot be split: it is not what the API server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not what the API server sends")]
pub struct Malformed;

/// Splits a stream of JSON objects, of which one member holds an object or a list of objects.
#[derive(Debug)]
pub struct Splitter {
    member: &'static [u8],
    /// Objects and lists that are open.
    depth: usize,
    /// Depth at which items begin, while the member is open.
    items: Option<usize>,
    is_in_text: bool,
    is_escaped: bool,
    /// The last text directly in the frame, and the last that stood before a colon.
    text: Vec<u8>,
    name: Vec<u8>,
    frame: Vec<u8>,
    item: Vec<u8>,
}

impl Splitter {
    /// Takes the objects in that member out of each frame.
    pub fn new(member: &'static str) -> Self {
        Self {
            member: member.as_bytes(),
            depth: 0,
            items: None,
            is_in_text: false,
            is_escaped: false,
            text: Vec::new(),
            name: Vec::new(),
            frame: Vec::new(),
            item: Vec::new(),
        }
    }

    /// The item that ended last, or what is known of the one that is read. One that is too large is cut off.
    pub fn item(&self) -> &[u8] {
        &self.item
    }

    /// The page or event that ended last, with `null` or nothing in place of its objects.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Whether the stream ends between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.depth == 0
    }

    /// Lets go of the memory of an item.
    pub fn forget_item(&mut self) {
        self.item = Vec::new();
    }

    /// Reads up to the end of an item or frame. Returns how many bytes were read, and what ended.
    ///
    /// # Errors
    /// When the stream is no JSON objects one after the other, or what is around the items is too large.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Part>), Malformed> {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(ended) = self.byte(*byte)? {
                return Ok((index + 1, Some(ended)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// Whether what is read now is within an item.
    fn is_in_item(&self) -> bool {
        self.items.is_some_and(|items| self.depth > items)
    }

    fn byte(&mut self, byte: u8) -> Result<Option<Part>, Malformed> {
        if self.is_in_text {
            return self.in_text(byte).map(|()| None);
        }
        match byte {
            b'"' => {
                self.is_in_text = true;
                self.text.clear();
                self.keep(byte)?;
            }
            b'{' | b'[' => self.open(byte)?,
            b'}' | b']' => return self.close(byte),
            b':' if self.depth == 1 => {
                self.name.clone_from(&self.text);
                self.keep(byte)?;
            }
            _ => self.keep(byte)?,
        }
        Ok(None)
    }

    fn in_text(&mut self, byte: u8) -> Result<(), Malformed> {
        self.keep(byte)?;
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => {
                self.is_in_text = false;
                return Ok(());
            }
            _ => {}
        }
        // The names that count are short.
        if self.depth == 1 && self.text.len() <= self.member.len() {
            self.text.push(byte);
        }
        Ok(())
    }

    fn open(&mut self, byte: u8) -> Result<(), Malformed> {
        let begins = self.depth == 1 && self.name == self.member;
        if self.depth == 0 {
            self.frame.clear();
            self.name.clear();
        }
        if begins && byte == b'{' {
            self.items = Some(self.depth);
        }
        self.depth += 1;
        if self.items.is_some_and(|items| self.depth == items + 1) {
            self.item.clear();
        }
        self.keep(byte)?;
        if begins && byte == b'[' {
            self.items = Some(self.depth);
        }
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<Option<Part>, Malformed> {
        if self.items == Some(self.depth) {
            // The end of the list of items.
            self.items = None;
        }
        self.keep(byte)?;
        self.depth = self.depth.checked_sub(1).ok_or(Malformed)?;
        if self.items == Some(self.depth) {
            if self.depth == 1 {
                // The object of an event: something has to stand where it stood.
                self.items = None;
                self.frame.extend_from_slice(b"null");
            }
            return Ok(Some(Part::Item));
        }
        if self.depth == 0 {
            return Ok(Some(Part::Frame));
        }
        Ok(None)
    }

    fn keep(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.is_in_item() {
            if self.item.len() < LARGEST {
                self.item.push(byte);
            }
        } else if self.items == Some(self.depth) && byte == b',' {
            // Between two items.
        } else if self.depth > 0 {
            if self.frame.len() == LARGEST_FRAME {
                return Err(Malformed);
            }
            self.frame.push(byte);
        } else if !byte.is_ascii_whitespace() {
            return Err(Malformed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn split(member: &'static str, stream: &str, size: usize) -> Result<Vec<(Part, String)>, Malformed> {
        let mut splitter = Splitter::new(member);
        let mut ends = Vec::new();
        for mut piece in stream.as_bytes().chunks(size) {
            while !piece.is_empty() {
                let (read, ended) = splitter.read(piece)?;
                piece = &piece[read..];
                let Some(ended) = ended else { continue };
                let bytes = match ended {
                    Part::Item => splitter.item(),
                    Part::Frame => splitter.frame(),
                };
                ends.push((ended, String::from_utf8(bytes.to_vec()).unwrap()));
            }
        }
        assert!(splitter.is_between_frames());
        Ok(ends)
    }

    fn item(text: &str) -> (Part, String) {
        (Part::Item, text.to_owned())
    }

    fn frame(text: &str) -> (Part, String) {
        (Part::Frame, text.to_owned())
    }

    #[rstest]
    fn s5_items_of_a_list_come_one_by_one(#[values(1, 2, 3, 7, 1000)] size: usize) {
        let page = r#"{"kind":"PodList","metadata":{"resourceVersion":"7","items":[{"a":1}]},"items":[{"a":{"items":[1]}}, {"b":"}\"]{\\"} ,{}],"x":"items"}"#;
        assert_eq!(
            split("items", page, size).unwrap(),
            [
                item(r#"{"a":{"items":[1]}}"#),
                item(r#"{"b":"}\"]{\\"}"#),
                item("{}"),
                frame(
                    r#"{"kind":"PodList","metadata":{"resourceVersion":"7","items":[{"a":1}]},"items":[  ],"x":"items"}"#
                ),
            ]
        );
    }

    #[rstest]
    fn s5_objects_of_events_come_one_by_one(#[values(1, 2, 3, 7, 1000)] size: usize) {
        let events = "{\"type\":\"ADDED\",\"object\":{\"object\":{\"a\":1}}}\n\n{\"object\":{},\"type\":\"BOOKMARK\"}\n";
        assert_eq!(
            split("object", events, size).unwrap(),
            [
                item(r#"{"object":{"a":1}}"#),
                frame(r#"{"type":"ADDED","object":null}"#),
                item("{}"),
                frame(r#"{"object":null,"type":"BOOKMARK"}"#),
            ]
        );
    }

    #[rstest]
    #[case::an_empty_list(r#"{"items":[],"metadata":{}}"#, r#"{"items":[],"metadata":{}}"#)]
    #[case::a_list_of_nothing(r#"{"items":null,"metadata":{}}"#, r#"{"items":null,"metadata":{}}"#)]
    #[case::a_name_in_a_value(r#"{"a":"items","b":[{}]}"#, r#"{"a":"items","b":[{}]}"#)]
    fn a_page_without_items_is_a_frame(#[case] page: &str, #[case] expected: &str) {
        assert_eq!(split("items", page, 3).unwrap(), [frame(expected)]);
    }

    #[rstest]
    #[case("}")]
    #[case("x")]
    #[case("{}]")]
    fn what_is_no_json_is_malformed(#[case] stream: &str) {
        assert_eq!(split("items", stream, 1), Err(Malformed));
    }

    /// S5: neither an item nor what is around the items grows without bound.
    #[test]
    fn s5_what_is_kept_is_bounded() {
        let mut splitter = Splitter::new("items");
        splitter
            .read(br#"{"items":[{"metadata":{"name":"crm"},"a":""#)
            .unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..20 {
            splitter.read(&piece).unwrap();
        }
        assert_eq!(splitter.item().len(), LARGEST);
        let mut splitter = Splitter::new("items");
        splitter.read(br#"{"metadata":""#).unwrap();
        assert_eq!(splitter.read(&piece), Err(Malformed));
    }
}
