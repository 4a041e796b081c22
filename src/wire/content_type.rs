//! The content type of bytes of which nobody said what they are: as v1's nodes tell it to their
//! clients, which is what Go's `http.DetectContentType` says. It follows the WHATWG's MIME Sniffing
//! Standard (mimesniff.spec.whatwg.org, sections 6 and 7) in the order and with the names that Go
//! gives. Sans-IO: bytes in, a name out.

/// Bytes of a body that are looked at.
const LOOKED_AT: usize = 512;

/// A sequence of bytes that stands at the beginning of one kind of content.
enum Signature {
    /// These very bytes.
    Bytes(&'static [u8]),
    /// Parts, and how many bytes of any kind follow each.
    Pattern(&'static [&'static [u8]], &'static [usize]),
    /// An HTML tag in capitals; white space before it is passed over, and the tag must end.
    Tag(&'static [u8]),
    /// Those bytes behind any white space.
    Spaced(&'static [u8]),
}

use Signature::{Bytes, Pattern, Spaced, Tag};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What is compared before the file format MP4, in this order.
const BEFORE_MP4: &[(Signature, &str)] = &[
    (Tag(b"<!DOCTYPE HTML"), HTML),
    (Tag(b"<HTML"), HTML),
    (Tag(b"<HEAD"), HTML),
    (Tag(b"<SCRIPT"), HTML),
    (Tag(b"<IFRAME"), HTML),
    (Tag(b"<H1"), HTML),
    (Tag(b"<DIV"), HTML),
    (Tag(b"<FONT"), HTML),
    (Tag(b"<TABLE"), HTML),
    (Tag(b"<A"), HTML),
    (Tag(b"<STYLE"), HTML),
    (Tag(b"<TITLE"), HTML),
    (Tag(b"<B"), HTML),
    (Tag(b"<BODY"), HTML),
    (Tag(b"<BR"), HTML),
    (Tag(b"<P"), HTML),
    (Tag(b"<!--"), HTML),
    (Spaced(b"<?xml"), "text/xml; charset=utf-8"),
    (Bytes(b"%PDF-"), "application/pdf"),
    (Bytes(b"%!PS-Adobe-"), "application/postscript"),
    // The marks of UTF-16 and UTF-8 count only with something behind them.
    (Pattern(&[b"\xFE\xFF"], &[2]), "text/plain; charset=utf-16be"),
    (Pattern(&[b"\xFF\xFE"], &[2]), "text/plain; charset=utf-16le"),
    (Pattern(&[b"\xEF\xBB\xBF"], &[1]), TEXT),
    (Bytes(b"\x00\x00\x01\x00"), "image/x-icon"),
    (Bytes(b"\x00\x00\x02\x00"), "image/x-icon"),
    (Bytes(b"BM"), "image/bmp"),
    (Bytes(b"GIF87a"), "image/gif"),
    (Bytes(b"GIF89a"), "image/gif"),
    (Pattern(&[b"RIFF", b"WEBPVP"], &[4, 0]), "image/webp"),
    (Bytes(b"\x89PNG\r\n\x1A\n"), "image/png"),
    (Bytes(b"\xFF\xD8\xFF"), "image/jpeg"),
    (Pattern(&[b"FORM", b"AIFF"], &[4, 0]), "audio/aiff"),
    (Bytes(b"ID3"), "audio/mpeg"),
    (Bytes(b"OggS\x00"), "application/ogg"),
    (Bytes(b"MThd\x00\x00\x00\x06"), "audio/midi"),
    (Pattern(&[b"RIFF", b"AVI "], &[4, 0]), "video/avi"),
    (Pattern(&[b"RIFF", b"WAVE"], &[4, 0]), "audio/wave"),
];
/// What is compared after it.
const AFTER_MP4: &[(Signature, &str)] = &[
    (Bytes(b"\x1A\x45\xDF\xA3"), "video/webm"),
    (Pattern(&[b"", b"LP"], &[34, 0]), "application/vnd.ms-fontobject"),
    (Bytes(b"\x00\x01\x00\x00"), "font/ttf"),
    (Bytes(b"OTTO"), "font/otf"),
    (Bytes(b"ttcf"), "font/collection"),
    (Bytes(b"wOFF"), "font/woff"),
    (Bytes(b"wOF2"), "font/woff2"),
    (Bytes(b"\x1F\x8B\x08"), "application/x-gzip"),
    (Bytes(b"PK\x03\x04"), "application/zip"),
    (Bytes(b"Rar!\x1A\x07\x00"), "application/x-rar-compressed"),
    (Bytes(b"Rar!\x1A\x07\x01\x00"), "application/x-rar-compressed"),
    (Bytes(b"\x00asm"), "application/wasm"),
];

/// The content type of `body` by its first bytes; `None` if there are none.
pub fn sniffed(body: &[u8]) -> Option<&'static str> {
    let body = body.get(..LOOKED_AT).unwrap_or(body);
    if body.is_empty() {
        return None;
    }
    let space = |c: &u8| matches!(c, b'\t' | b'\n' | b'\x0C' | b'\r' | b' ');
    let start = body.iter().position(|c| !space(c)).unwrap_or(body.len());
    let text = body.get(start..).unwrap_or_default();
    let find = |table: &[(Signature, &'static str)]| {
        table.iter().find(|(signature, _)| signature.fits(body, text)).map(|(_, name)| *name)
    };
    let found = find(BEFORE_MP4)
        .or_else(|| is_mp4(body).then_some("video/mp4"))
        .or_else(|| find(AFTER_MP4))
        .or_else(|| text.iter().all(is_text).then_some(TEXT));
    Some(found.unwrap_or("application/octet-stream"))
}

impl Signature {
    /// Whether `body` begins so; `text` is what comes behind its white space.
    fn fits(&self, body: &[u8], text: &[u8]) -> bool {
        match self {
            Bytes(bytes) => body.starts_with(bytes),
            Spaced(bytes) => text.starts_with(bytes),
            Tag(tag) => text.split_at_checked(tag.len()).is_some_and(|(name, rest)| {
                name.eq_ignore_ascii_case(tag) && matches!(rest.first(), Some(b' ' | b'>'))
            }),
            Pattern(parts, gaps) => {
                let mut rest = Some(body);
                for (part, gap) in parts.iter().zip(*gaps) {
                    rest = rest
                        .and_then(|rest| rest.strip_prefix(*part))
                        .and_then(|rest| rest.get(*gap..));
                }
                rest.is_some()
            }
        }
    }
}

/// What a text has none of.
fn is_text(byte: &u8) -> bool {
    !matches!(byte, 0..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F)
}

/// The first box of an MP4 file names the brands that it is compatible with (section 6.2.1).
fn is_mp4(body: &[u8]) -> bool {
    let Some((size, rest)) = body.split_first_chunk::<4>() else { return false };
    let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
    if body.len() < 12 || body.len() < size || size % 4 != 0 || !rest.starts_with(b"ftyp") {
        return false;
    }
    let brands = body.get(8..size).unwrap_or_default().chunks(4).enumerate();
    // The second is the version of the first.
    brands.into_iter().any(|(place, brand)| place != 1 && brand.starts_with(b"mp4"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BINARY: &str = "application/octet-stream";

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_signature_has_the_name_that_go_gives_it() {
        let embedded: Vec<u8> = [&[7; 34][..], b"LP\0"].concat();
        let cases: &[(&[u8], &str)] = &[
            // Documents.
            (b"<!DOCTYPE html>x", HTML),
            (b"<!doctype HTML >x", HTML),
            (b" \r\n\t\x0C<HtMl>", HTML),
            (b"<head>", HTML),
            (b"<script >", HTML),
            (b"<iframe>", HTML),
            (b"<h1>", HTML),
            (b"<div >", HTML),
            (b"<font>", HTML),
            (b"<table>", HTML),
            (b"<a href=x>", HTML),
            (b"<style>", HTML),
            (b"<title>", HTML),
            (b"<b>", HTML),
            (b"<body>", HTML),
            (b"<br>", HTML),
            (b"<p>", HTML),
            (b"<!-- x -->", HTML),
            (b"\n <?xml version='1.0'?>", "text/xml; charset=utf-8"),
            (b"%PDF-1.7", "application/pdf"),
            (b"%!PS-Adobe-3.0", "application/postscript"),
            // Texts with a mark.
            (b"\xFE\xFF\x00a", "text/plain; charset=utf-16be"),
            (b"\xFF\xFEa\x00", "text/plain; charset=utf-16le"),
            (b"\xEF\xBB\xBFa\x00", TEXT),
            // Pictures.
            (b"\x00\x00\x01\x00\x00", "image/x-icon"),
            (b"\x00\x00\x02\x00\x00", "image/x-icon"),
            (b"BM\x00", "image/bmp"),
            (b"GIF87a\x01", "image/gif"),
            (b"GIF89a\x01", "image/gif"),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp"),
            (b"\x89PNG\r\n\x1A\n\x00", "image/png"),
            (b"\xFF\xD8\xFF\xE0", "image/jpeg"),
            // Sound and films.
            (b"FORM\x00\x00\x00\x01AIFFx", "audio/aiff"),
            (b"ID3\x04", "audio/mpeg"),
            (b"OggS\x00\x02", "application/ogg"),
            (b"MThd\x00\x00\x00\x06\x00", "audio/midi"),
            (b"RIFF\x00\x00\x00\x01AVI x", "video/avi"),
            (b"RIFF\x00\x00\x00\x01WAVEfmt ", "audio/wave"),
            (b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00", "video/mp4"),
            (b"\x00\x00\x00\x14ftypisom\x00\x00\x02\x00mp41", "video/mp4"),
            (b"\x1A\x45\xDF\xA3\x01", "video/webm"),
            // Fonts.
            (&embedded, "application/vnd.ms-fontobject"),
            (b"\x00\x01\x00\x00\x00", "font/ttf"),
            (b"OTTO\x00", "font/otf"),
            (b"ttcf\x00", "font/collection"),
            (b"wOFF\x00", "font/woff"),
            (b"wOF2\x00", "font/woff2"),
            // Archives and programs.
            (b"\x1F\x8B\x08\x00", "application/x-gzip"),
            (b"PK\x03\x04\x14", "application/zip"),
            (b"Rar!\x1A\x07\x00x", "application/x-rar-compressed"),
            (b"Rar!\x1A\x07\x01\x00x", "application/x-rar-compressed"),
            (b"\x00asm\x01", "application/wasm"),
        ];
        for (body, name) in cases {
            assert_eq!(sniffed(body), Some(*name), "{}", body.escape_ascii());
        }
        // Each signature of the tables is among them.
        for (signature, name) in BEFORE_MP4.iter().chain(AFTER_MP4) {
            let shown = |(body, of): &&(&[u8], &str)| {
                let start = body.iter().position(|c| !c.is_ascii_whitespace()).unwrap_or(0);
                of == name && signature.fits(body, &body[start..])
            };
            assert!(cases.iter().any(|case| shown(&case)), "{name}");
        }
    }

    #[test]
    fn what_only_resembles_a_signature_is_text_or_binary() {
        for (body, name) in [
            (&b"hello"[..], TEXT),
            (b"{\"a\":1}", TEXT),
            (b" \r\n\t", TEXT),
            ("é€😀".as_bytes(), TEXT),
            // Go looks for control characters alone, not for UTF-8.
            (b"caf\xE9", TEXT),
            (b"\x1B[31mred", TEXT),
            (b"<htmlx", TEXT),
            (b"<html", TEXT),
            (b"<p\n", TEXT),
            (b"<br/>", TEXT),
            (b"<?XML ", TEXT),
            (b"\xFE\xFFa", TEXT),
            (b"\xEF\xBB\xBF", TEXT),
            (b"\xFF\xFE", TEXT),
            (b"GIF88a", TEXT),
            (b" GIF89a", TEXT),
            (b"RIFF", TEXT),
            (b"PK\x05\x06", BINARY),
            (b"\x00", BINARY),
            (b"a\x00b", BINARY),
            (b"\x7FELF\x02", BINARY),
            (b"OggX\x00", BINARY),
            (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00", BINARY),
            (b"\x00\x00\x00\x10ftypisommp4\x00", BINARY),
            (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", BINARY),
            (b"\x00\x00\x00\x0Fftypmp42\x00\x00\x00\x00", BINARY),
        ] {
            assert_eq!(sniffed(body), Some(name), "{}", body.escape_ascii());
        }
        assert_eq!(sniffed(b""), None);
    }

    #[test]
    fn only_the_beginning_is_looked_at() {
        let mut body = vec![b'a'; LOOKED_AT];
        body.push(0);
        assert_eq!(sniffed(&body), Some(TEXT));
        body[LOOKED_AT - 1] = 0;
        assert_eq!(sniffed(&body), Some(BINARY));
    }

    #[test]
    fn a_byte_is_of_a_text_or_not_as_go_says() {
        let binary = |byte: u8| sniffed(&[b'a', byte]) == Some(BINARY);
        let control: Vec<u8> = (0..=255).filter(|byte| binary(*byte)).collect();
        let want: Vec<u8> = (0..32).filter(|c| ![9, 10, 12, 13, 27].contains(c)).collect();
        assert_eq!(control, want);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_name(body in prop::collection::vec(any::<u8>(), 1..40)) {
            prop_assert!(sniffed(&body).is_some_and(|name| name.contains('/')));
        }
    }
}
