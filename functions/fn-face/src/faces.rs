//! What the function does: reads a picture, finds the faces in it, frames them. Nothing here knows
//! of HTTP. The detector is SeetaFace, as the package rustface ports it: frontal faces, one core.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImage, GenericImageView, ImageDecoder, ImageFormat, ImageReader, Limits,
    Rgba,
};
use rustface::{ImageData, Model};
use serde::Serialize;

/// A picture to try the function with: 29 people.
pub const TEST_PICTURE: &[u8] = include_bytes!(env!("TEST_PICTURE"));
/// What the detector has learnt.
const MODEL: &[u8] = include_bytes!(env!("FACE_MODEL"));

/// Pixels on a side of a picture that is taken at all.
pub const SIDE_MAX: u32 = 16_384;
/// Memory that a decoded picture may take: 44 megapixels of a photo. A file of some kB can ask for
/// gigabytes.
const DECODED_BYTES_MAX: u64 = 128 << 20;

/// The sizes of faces, in pixels, that may be asked for as the smallest.
pub const MIN_FACE: std::ops::RangeInclusive<u32> = 20..=4096;
/// The smallest face when none is asked for: that of the detector on the picture as it is.
pub const MIN_FACE_DEFAULT: u32 = WINDOW;
/// Pixels on a side of the detector's window. It is fixed, so the picture is scaled instead.
const WINDOW: u32 = 40;
/// Pixels on the longer side of what is searched. Bounds the time, which grows with the area.
const SEARCHED_SIDE_MAX: u32 = 1920;

/// Pixels between two windows. With 2 a search takes thrice as long; with 6 faces are missed.
const STEP: u32 = 4;
/// One size of the picture to the next smaller one.
const PYRAMID_FACTOR: f32 = 0.8;
/// The lowest score that counts as a face. Those of the test picture are 4.8 and more.
const SCORE_MIN: f64 = 3.0;

/// Not red: the test picture has red frames of its own.
const FRAME: Rgba<u8> = Rgba([0, 230, 64, 255]);
/// Of 100: no loss that is seen, at a size like that of a photo.
const JPEG_QUALITY: u8 = 90;

/// A picture that cannot be worked on, and why.
#[derive(Debug)]
pub enum BadPicture {
    /// It is no JPEG or PNG, or broken.
    Unreadable(String),
    /// It is larger than a limit, which the text names.
    TooLarge(String),
}

/// A face: a rectangle inside the picture, in pixels from its upper left corner.
#[derive(Clone, Debug, Serialize)]
pub struct Face {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// At least 1.
    pub width: u32,
    /// At least 1.
    pub height: u32,
    /// How sure the detector is; it has no upper bound.
    pub score: f64,
}

/// A decoded picture, upright.
pub struct Picture {
    pixels: DynamicImage,
    format: ImageFormat,
}

impl Picture {
    /// Decodes a JPEG or PNG and turns it upright, as phones note in a photo how they were held.
    ///
    /// # Errors
    /// It is no such file, broken or too large.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadPicture> {
        let broken = |why: &dyn std::fmt::Display| {
            BadPicture::Unreadable(format!("the picture cannot be decoded: {why}"))
        };
        let reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|why| broken(&why))?;
        let Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) = reader.format() else {
            return Err(BadPicture::Unreadable("the body is neither JPEG nor PNG".to_owned()));
        };
        let mut decoder = reader.into_decoder().map_err(|why| broken(&why))?;
        let (width, height) = decoder.dimensions();
        if width.max(height) > SIDE_MAX {
            return Err(BadPicture::TooLarge(format!(
                "the picture has {width} x {height} pixels; at most {SIDE_MAX} on a side are taken"
            )));
        }
        if decoder.total_bytes() > DECODED_BYTES_MAX {
            return Err(BadPicture::TooLarge(format!(
                "the picture has {width} x {height} pixels and takes {} bytes decoded; \
                 at most {DECODED_BYTES_MAX} are taken",
                decoder.total_bytes()
            )));
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODED_BYTES_MAX);
        decoder.set_limits(limits).map_err(|why| broken(&why))?;
        // A picture with a note that cannot be read is still a picture.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut pixels = DynamicImage::from_decoder(decoder).map_err(|why| broken(&why))?;
        pixels.apply_orientation(orientation);
        Ok(Self { pixels, format })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.pixels.dimensions()
    }

    /// The media type of the picture's format.
    pub fn media_type(&self) -> &'static str {
        self.format.to_mime_type()
    }

    /// The picture with `faces` framed, in its own format, eight bits a channel.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn framed(self, faces: &[Face]) -> Result<Vec<u8>, String> {
        let (width, height) = self.size();
        let thickness = (width.max(height) / 400).max(2);
        // Coloured, so that the frames of a grey picture are; JPEG knows no transparency.
        let transparent = self.pixels.color().has_alpha() && self.format == ImageFormat::Png;
        let mut pixels: DynamicImage = match transparent {
            true => self.pixels.into_rgba8().into(),
            false => self.pixels.into_rgb8().into(),
        };
        for face in faces {
            frame(&mut pixels, face, thickness);
        }
        let mut bytes = Cursor::new(Vec::new());
        match self.format {
            ImageFormat::Jpeg => {
                pixels.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))
            }
            format => pixels.write_to(&mut bytes, format),
        }
        .map_err(|why| format!("the framed picture cannot be encoded: {why}"))?;
        Ok(bytes.into_inner())
    }
}

/// Draws the outermost `thickness` pixels of `face`.
fn frame(pixels: &mut DynamicImage, face: &Face, thickness: u32) {
    for y in 0..face.height {
        for x in 0..face.width {
            let inside = x.min(y).min(face.width - 1 - x).min(face.height - 1 - y);
            let (at_x, at_y) = (face.x + x, face.y + y);
            if inside < thickness && pixels.in_bounds(at_x, at_y) {
                pixels.put_pixel(at_x, at_y, FRAME);
            }
        }
    }
}

/// Finds faces. Made once: reading the model takes longer than copying it.
pub struct Finder {
    model: Model,
}

impl Finder {
    /// Reads the model.
    ///
    /// # Errors
    /// The model is broken.
    pub fn new() -> Result<Self, String> {
        let model = rustface::read_model(MODEL).map_err(|why| format!("the model: {why}"))?;
        Ok(Self { model })
    }

    /// The faces of at least `min_face` pixels, those with the highest score first. Blocks for as
    /// long as it takes. In a picture whose longer side has more than 1920 pixels the smallest face
    /// found is `longer side / 48`, if that is more than `min_face`.
    pub fn find(&self, picture: &Picture, min_face: u32) -> Vec<Face> {
        let (width, height) = picture.size();
        let grey = picture.pixels.to_luma8();
        let to_window = f64::from(WINDOW) / f64::from(min_face.max(1));
        let to_longest = f64::from(SEARCHED_SIDE_MAX) / f64::from(width.max(height).max(1));
        let scale = to_window.min(to_longest);
        let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        let searched = (scaled(width), scaled(height));
        let grey = match searched == (width, height) {
            true => grey,
            false => imageops::resize(&grey, searched.0, searched.1, FilterType::Triangle),
        };

        let shorter = searched.0.min(searched.1);
        if shorter <= WINDOW {
            return Vec::new();
        }
        // It keeps buffers and changes them: one for each search.
        let mut detector = rustface::create_detector_with_model(self.model.clone());
        detector.set_slide_window_step(STEP, STEP);
        detector.set_pyramid_scale_factor(PYRAMID_FACTOR);
        detector.set_score_thresh(SCORE_MIN);
        // Else its smallest picture can be smaller than the window, by rounding, and it panics.
        detector.set_max_face_size(shorter - 1);
        let found = detector.detect(&ImageData::new(&grey, searched.0, searched.1));

        let (by_x, by_y) =
            (f64::from(width) / f64::from(searched.0), f64::from(height) / f64::from(searched.1));
        let mut faces: Vec<Face> = found
            .iter()
            .filter_map(|face| {
                let at = face.bbox();
                let (x, right) = within(at.x(), at.width(), by_x, width)?;
                let (y, lower) = within(at.y(), at.height(), by_y, height)?;
                Some(Face { x, y, width: right - x, height: lower - y, score: face.score() })
            })
            .collect();
        faces.sort_by(|one, other| other.score.total_cmp(&one.score));
        faces
    }
}

/// A rectangle's side as the detector gives it, which may reach over the picture's edge: scaled by
/// `by` and cut to `0..limit`. None when nothing is left.
fn within(start: i32, length: u32, by: f64, limit: u32) -> Option<(u32, u32)> {
    let start = f64::from(start);
    let scaled = |at: f64| (at * by).round().clamp(0.0, f64::from(limit)) as u32;
    let (start, end) = (scaled(start), scaled(start + f64::from(length)));
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, RgbImage, RgbaImage};

    /// A grey PNG.
    fn png(width: u32, height: u32) -> Vec<u8> {
        encoded(GrayImage::from_pixel(width, height, image::Luma([90])).into(), ImageFormat::Png)
    }

    /// `pixels` as a file.
    fn encoded(pixels: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    }

    /// The test picture, decoded.
    fn test_picture() -> Picture {
        Picture::decode(TEST_PICTURE).expect("decodes")
    }

    /// The faces in `picture`.
    fn find(picture: &Picture, min_face: u32) -> Vec<Face> {
        Finder::new().expect("a model").find(picture, min_face)
    }

    /// `picture` as a JPEG of a camera that was held upright: turned, with EXIF's orientation 6.
    fn photo_held_upright(picture: DynamicImage) -> Vec<u8> {
        let jpeg = encoded(DynamicImage::from(picture.to_rgb8()).rotate270(), ImageFormat::Jpeg);
        let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let segment = [b"Exif\0\0".as_slice(), tiff].concat();
        let length = (segment.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &segment, &jpeg[2..]].concat()
    }

    #[test]
    fn all_29_people_of_the_test_picture_are_found_and_nobody_else() {
        let picture = test_picture();
        let faces = find(&picture, MIN_FACE_DEFAULT);
        assert_eq!(faces.len(), 29);
        // Below the people are their names.
        assert!(faces.iter().all(|face| face.y + face.height < 400), "{faces:?}");
        // No two are the same.
        for (i, one) in faces.iter().enumerate() {
            for other in &faces[i + 1..] {
                assert!(
                    one.x.abs_diff(other.x) + one.y.abs_diff(other.y) > 20,
                    "{one:?} {other:?}"
                );
            }
        }
        // A. Einstein, in the middle of the first row.
        let (x, y) = (895, 280);
        let of_him = |face: &&Face| {
            (face.x..face.x + face.width).contains(&x)
                && (face.y..face.y + face.height).contains(&y)
        };
        assert_eq!(faces.iter().filter(of_him).count(), 1);
    }

    #[test]
    fn those_with_the_highest_score_come_first() {
        let faces = find(&test_picture(), MIN_FACE_DEFAULT);
        assert!(faces.is_sorted_by(|one, next| one.score >= next.score));
    }

    #[test]
    fn faces_are_found_at_their_place_in_smaller_and_larger_pictures() {
        let whole = test_picture();
        let faces = find(&whole, MIN_FACE_DEFAULT);
        for (factor, min_face) in [(0.5, 20), (2.0, 80)] {
            let (width, height) = whole.size();
            let side = |side: u32| (f64::from(side) * factor) as u32;
            let scaled = whole.pixels.resize_exact(side(width), side(height), FilterType::Triangle);
            let scaled = Picture { pixels: scaled, format: ImageFormat::Png };
            let again = find(&scaled, min_face);
            assert!((28..=30).contains(&again.len()), "{factor}: {}", again.len());
            let near = |one: &Face, other: &Face| {
                let apart = |a: u32, b: u32| (f64::from(a) - f64::from(b) / factor).abs() < 20.0;
                apart(one.x, other.x) && apart(one.y, other.y) && apart(one.width, other.width)
            };
            let kept = faces.iter().filter(|one| again.iter().any(|other| near(one, other)));
            assert!(kept.count() >= 28, "{factor}");
        }
    }

    #[test]
    fn a_larger_smallest_face_leaves_smaller_faces_out() {
        assert!(find(&test_picture(), 200).is_empty());
    }

    #[test]
    fn a_photo_is_turned_upright_before_faces_are_looked_for() {
        let photo = photo_held_upright(test_picture().pixels);
        let lying = image::load_from_memory(&photo).expect("decodes").dimensions();
        let picture = Picture::decode(&photo).expect("decodes");
        assert_eq!((lying.1, lying.0), picture.size());
        assert_eq!(picture.size(), test_picture().size());
        assert!(find(&picture, MIN_FACE_DEFAULT).len() >= 28);
    }

    #[test]
    fn pictures_without_faces_have_none_whatever_their_size() {
        for (width, height) in [(1, 1), (2, 300), (40, 40), (41, 41), (50, 50), (64, 4000)] {
            let picture = Picture::decode(&png(width, height)).expect("decodes");
            assert!(find(&picture, MIN_FACE_DEFAULT).is_empty(), "{width} x {height}");
            assert!(find(&picture, *MIN_FACE.start()).is_empty(), "{width} x {height}");
            assert!(find(&picture, *MIN_FACE.end()).is_empty(), "{width} x {height}");
        }
    }

    #[test]
    fn a_rectangle_over_the_edge_is_cut_to_the_picture() {
        let whole = test_picture();
        // Cuts through faces on all four sides.
        let cut = Picture { pixels: whole.pixels.crop_imm(270, 230, 950, 60), ..whole };
        for (picture, min_face) in [(cut, 20), (test_picture(), 40)] {
            let (width, height) = picture.size();
            for face in find(&picture, min_face) {
                assert!(face.width > 0 && face.x + face.width <= width, "{face:?}");
                assert!(face.height > 0 && face.y + face.height <= height, "{face:?}");
            }
        }
        assert_eq!(within(-10, 30, 1.0, 100), Some((0, 20)));
        assert_eq!(within(90, 30, 2.0, 200), Some((180, 200)));
        assert_eq!(within(-30, 30, 1.0, 100), None);
        assert_eq!(within(i32::MAX, u32::MAX, 2.0, 100), None);
    }

    #[test]
    fn a_frame_changes_the_border_of_its_rectangle_and_nothing_else() {
        let (face, thickness) = (Face { x: 5, y: 7, width: 20, height: 12, score: 9.0 }, 3);
        let mut pixels = DynamicImage::from(RgbImage::new(40, 30));
        frame(&mut pixels, &face, thickness);
        for (x, y, pixel) in pixels.pixels() {
            let inside = (5..25).contains(&x) && (7..19).contains(&y);
            let within = (8..22).contains(&x) && (10..16).contains(&y);
            assert_eq!(pixel == FRAME, inside && !within, "{x}, {y}");
        }
    }

    #[test]
    fn a_framed_picture_keeps_its_format_size_and_transparency() {
        let face = Face { x: 5, y: 5, width: 20, height: 20, score: 9.0 };
        let clear = RgbaImage::from_pixel(64, 48, Rgba([1, 2, 3, 0])).into();
        for (bytes, alpha) in [
            (encoded(clear, ImageFormat::Png), true),
            (png(64, 48), false),
            (encoded(RgbImage::new(64, 48).into(), ImageFormat::Jpeg), false),
        ] {
            let format = image::guess_format(&bytes).expect("a picture");
            let picture = Picture::decode(&bytes).expect("decodes");
            let framed = picture.framed(std::slice::from_ref(&face)).expect("encodes");
            assert_eq!(image::guess_format(&framed).expect("a picture"), format);
            let framed = image::load_from_memory(&framed).expect("decodes");
            assert_eq!(framed.dimensions(), (64, 48));
            assert_eq!(framed.color().has_alpha(), alpha);
            let Rgba([red, green, ..]) = framed.get_pixel(5, 5);
            assert!(green > 150 && red < 100, "{format:?} is green at the frame");
        }
    }

    #[test]
    fn what_is_no_picture_or_a_broken_one_is_unreadable() {
        for bad in [&b""[..], b"GIF89a", b"hello", &TEST_PICTURE[..1000], &[0xff, 0xd8, 0xff]] {
            assert!(matches!(Picture::decode(bad), Err(BadPicture::Unreadable(_))));
        }
    }

    #[test]
    fn a_picture_beyond_a_limit_is_refused_before_it_is_decoded_and_the_limit_named() {
        // The header of a PNG alone says these sizes; there is nothing behind it to decode.
        for (width, height, limit) in [(16_385, 1, "16384"), (16_384, 16_384, "134217728")] {
            let mut bytes = png(1, 1);
            bytes[16..20].copy_from_slice(&u32::to_be_bytes(width));
            bytes[20..24].copy_from_slice(&u32::to_be_bytes(height));
            // Eight bits, RGB; then the header's checksum.
            bytes[24..26].copy_from_slice(&[8, 2]);
            let sum = crc(&bytes[12..29]).to_be_bytes();
            bytes[29..33].copy_from_slice(&sum);
            match Picture::decode(&bytes) {
                Err(BadPicture::TooLarge(why)) => assert!(why.contains(limit), "{why}"),
                other => panic!("{:?}", other.err()),
            }
        }
    }

    /// PNG's checksum.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 }
            })
        })
    }
}
