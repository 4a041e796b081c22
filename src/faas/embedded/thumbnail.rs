//! `fn-thumbnail`: decodes a JPEG or PNG and answers it scaled down as JPEG.
//!
//! The query may say `width` and `height`, 1 to 4096 pixels: the picture is fitted into that box, its
//! proportions kept. With one of the two the other side is as long as the proportions make it; with
//! neither the box has 128 pixels on each side. A picture is never scaled up.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView, ImageFormat, ImageReader, Limits};
use serde::Deserialize;

/// Pixels on both sides when the query names neither.
const DEFAULT: u32 = 128;
const LARGEST: u32 = 4096;
/// Pixels on a side of a picture that is taken at all.
const SIDE_MAX: u32 = 16_384;
const QUALITY: u8 = 80;

/// The box that a picture is fitted into, in pixels. A side that the query leaves free is as long as
/// that of any picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Asked {
    width: Option<u32>,
    height: Option<u32>,
}

impl Size {
    /// Reads `width` and `height`.
    ///
    /// # Errors
    /// What in the query cannot be read.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let asked = actix_web::web::Query::<Asked>::from_query(query)
            .map_err(|why| format!("the query: {why}; known: width, height"))?;
        let named = [asked.width, asked.height];
        if !named.iter().flatten().all(|side| (1..=LARGEST).contains(side)) {
            return Err(format!("width and height are within 1 to {LARGEST}"));
        }
        let other = if named == [None, None] { DEFAULT } else { SIDE_MAX };
        let [width, height] = named.map(|side| side.unwrap_or(other));
        Ok(Self { width, height })
    }
}

/// Bytes of memory that working on `picture` may take, told from its head alone: what it is decoded
/// to, a copy in the form that JPEG knows, and for a JPEG its coefficients, which a progressive one
/// holds all at once.
///
/// # Errors
/// It is no JPEG or PNG, or too large on a side.
pub fn cost_bytes(picture: &[u8]) -> Result<u64, String> {
    let reader = reader(picture)?;
    let (decoded, coefficients) = match reader.format() {
        Some(ImageFormat::Jpeg) => (3, 6),
        // The largest form of PNG: four channels of 16 bits.
        // A copy with as many is made when it is scaled.
        _ => (8, 8),
    };
    let (width, height) = reader.into_dimensions().map_err(undecodable)?;
    if width.max(height) > SIDE_MAX {
        return Err(format!("the picture has more than {SIDE_MAX} pixels on a side"));
    }
    Ok(u64::from(width) * u64::from(height) * (decoded + coefficients + 3))
}

fn undecodable(why: impl std::fmt::Display) -> String {
    format!("the picture cannot be decoded: {why}")
}

fn reader(picture: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    ImageReader::new(Cursor::new(picture)).with_guessed_format().map_err(undecodable)
}

/// Decodes `picture`, fits it into `size` and encodes it as JPEG, in at most `memory_bytes`. Blocks
/// for as long as it takes.
///
/// # Errors
/// It is no JPEG or PNG, broken, or too large.
pub fn scale(picture: &[u8], size: Size, memory_bytes: u64) -> Result<Vec<u8>, String> {
    let mut reader = reader(picture)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(memory_bytes);
    reader.limits(limits);
    let decoded = reader.decode().map_err(undecodable)?;
    let (width, height) = decoded.dimensions();
    let scaled = if width <= size.width && height <= size.height {
        decoded
    } else {
        decoded.thumbnail(size.width, size.height)
    };
    let mut jpeg = Vec::new();
    // JPEG knows neither transparency nor 16-bit channels.
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&scaled.into_rgb8())
        .map_err(|why| format!("the thumbnail cannot be encoded: {why}"))?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8, y as u8, 7, 200]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(picture).write_to(&mut bytes, ImageFormat::Png).expect("encodes");
        bytes.into_inner()
    }

    fn scaled(picture: &[u8], query: &str) -> (u32, u32) {
        let jpeg =
            scale(picture, Size::from_query(query).expect("good"), 64 << 20).expect("scales");
        assert_eq!(image::guess_format(&jpeg).expect("a picture"), ImageFormat::Jpeg);
        image::load_from_memory(&jpeg).expect("decodes").dimensions()
    }

    #[test]
    fn a_picture_is_fitted_into_the_box_with_its_proportions_and_never_scaled_up() {
        assert_eq!(scaled(&png(400, 200), ""), (128, 64));
        assert_eq!(scaled(&png(400, 200), "width=40&height=400"), (40, 20));
        assert_eq!(scaled(&png(30, 20), ""), (30, 20));
        assert_eq!(scaled(&png(30, 20), "width=200"), (30, 20));
        let jpeg = scale(&png(64, 64), Size { width: 64, height: 64 }, 1 << 20).expect("scales");
        assert_eq!(scaled(&jpeg, "width=16&height=16"), (16, 16), "a JPEG as well as a PNG");
    }

    #[test]
    fn one_side_alone_leaves_the_other_to_the_proportions() {
        assert_eq!(scaled(&png(600, 900), "width=200"), (200, 300));
        assert_eq!(scaled(&png(900, 600), "height=200"), (300, 200));
        assert_eq!(scaled(&png(10, 6000), "width=5"), (5, 3000), "longer than a side may be asked");
    }

    #[test]
    fn what_is_no_picture_or_a_broken_one_is_refused() {
        let size = Size { width: 8, height: 8 };
        let whole = png(50, 50);
        for bad in [&b""[..], b"GIF89a", b"hello", &whole[..whole.len() / 2]] {
            assert!(scale(bad, size, 1 << 20).is_err());
        }
    }

    #[test]
    fn what_a_picture_takes_is_told_before_it_is_decoded() {
        assert_eq!(cost_bytes(&png(50, 20)), Ok(50 * 20 * 19));
        let jpeg = scale(&png(64, 64), Size { width: 64, height: 32 }, 1 << 20).expect("scales");
        assert_eq!(cost_bytes(&jpeg), Ok(32 * 32 * 12));
        assert!(cost_bytes(b"GIF89a").is_err() && cost_bytes(b"").is_err());
        // The head of a picture of 16385 pixels on a side; nothing of it has to be there.
        let mut wide = png(50, 20);
        wide[16..20].copy_from_slice(&16_385_u32.to_be_bytes());
        assert!(cost_bytes(&wide).is_err(), "its checksum is wrong, too");
    }

    #[test]
    fn sizes_outside_their_range_are_refused() {
        for query in ["width=0", "height=4097", "width=x", "width=-1"] {
            assert!(Size::from_query(query).is_err(), "{query}");
        }
    }
}
