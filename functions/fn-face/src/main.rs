//! `fn-face`: a function that finds the faces in a picture. It is also the template for functions
//! of your own: this file is the HTTP server, `faces.rs` is what the function does.
//!
//! The body is a JPEG or PNG; a GET without one works on a test picture. The answer is JSON,
//! `{"width":W,"height":H,"faces":[{"x":..,"y":..,"width":..,"height":..,"score":..}]}`, those with
//! the highest score first. The query may say
//!
//! - `answer=picture`: answer the picture itself, its faces framed;
//! - `min_face=N`: the smallest face to look for, 20 to 4096 pixels, default 40. The larger,
//!   the faster.

#![forbid(unsafe_code)]

mod faces;

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data, PayloadConfig, Query, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError};
use faces::{BadPicture, Face, Finder, MIN_FACE, MIN_FACE_DEFAULT, Picture, TEST_PICTURE};
use serde::{Deserialize, Serialize};

/// The port at which nodes look for functions.
const PORT: u16 = 8080;
/// What a body may have. Nodes take no more unless they are told to.
const BODY_BYTES_MAX: usize = 16 << 20;
/// What the answer to a health check may take.
const HEALTH_TIME: Duration = Duration::from_secs(2);

/// Why a call has no answer. It is answered as the nodes answer errors: JSON of a code for
/// programs and a message for people.
#[derive(Debug)]
enum Failure {
    /// The caller can do better.
    Malformed(String),
    /// The picture or its body is larger than a limit.
    TooLarge(String),
    /// The function could not do it.
    Own(String),
}

/// A failure in JSON.
#[derive(Serialize)]
struct Told<'a> {
    code: u16,
    message: &'a str,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Malformed(why) | Self::TooLarge(why) | Self::Own(why)) = self;
        f.write_str(why)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Own(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let code = if matches!(self, Self::Own(_)) { 5 } else { 4 };
        HttpResponse::build(self.status_code()).json(Told { code, message: &self.to_string() })
    }
}

impl From<BadPicture> for Failure {
    fn from(bad: BadPicture) -> Self {
        match bad {
            BadPicture::Unreadable(why) => Self::Malformed(why),
            BadPicture::TooLarge(why) => Self::TooLarge(why),
        }
    }
}

/// The query. Keys that are not named here are ignored: they may be for somebody on the way.
#[derive(Deserialize)]
struct Asked {
    answer: Option<String>,
    min_face: Option<u32>,
}

/// What a caller wants, checked.
struct Wanted {
    picture: bool,
    min_face: u32,
}

impl Wanted {
    /// Reads `answer` and `min_face`; a wrong value is a failure that names it.
    fn from_query(query: &str) -> Result<Self, Failure> {
        let Query(asked) = Query::<Asked>::from_query(query)
            .map_err(|why| Failure::Malformed(format!("the query: {why}")))?;
        let picture = match asked.answer.as_deref() {
            None => false,
            Some("picture") => true,
            Some(other) => {
                let why = format!("answer is {other:?}; it can be picture, or left out for JSON");
                return Err(Failure::Malformed(why));
            }
        };
        let min_face = asked.min_face.unwrap_or(MIN_FACE_DEFAULT);
        if !MIN_FACE.contains(&min_face) {
            let (low, high) = (MIN_FACE.start(), MIN_FACE.end());
            let why = format!("min_face is {min_face}; it can be {low} to {high} pixels");
            return Err(Failure::Malformed(why));
        }
        Ok(Self { picture, min_face })
    }
}

/// The answer in JSON.
#[derive(Serialize)]
struct Found {
    width: u32,
    height: u32,
    faces: Vec<Face>,
}

/// What came of a call.
enum Answer {
    Json(Found),
    Picture { media_type: &'static str, bytes: Vec<u8> },
}

/// Answers a call.
async fn call(
    request: HttpRequest,
    body: Result<Bytes, actix_web::Error>,
    finder: Data<Finder>,
) -> Result<HttpResponse, Failure> {
    let wanted = Wanted::from_query(request.query_string())?;
    let body = body.map_err(|why| match why.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::TooLarge(format!("the body has more than {BODY_BYTES_MAX} bytes"))
        }
        _ => Failure::Malformed(format!("the body: {why}")),
    })?;
    let body = match body.is_empty() {
        false => body,
        true if request.method() == Method::GET => Bytes::from_static(TEST_PICTURE),
        true => return Err(Failure::Malformed("the body is empty; send a JPEG or PNG".to_owned())),
    };
    // It takes long: on a thread of its own, so that others are heard meanwhile.
    let answer = web::block(move || work(&finder, &wanted, &body))
        .await
        .map_err(|_| Failure::Own("the search for faces ended early".to_owned()))??;
    Ok(match answer {
        Answer::Json(found) => HttpResponse::Ok().json(found),
        Answer::Picture { media_type, bytes } => {
            HttpResponse::Ok().content_type(media_type).body(bytes)
        }
    })
}

/// The work of a call. Blocks.
fn work(finder: &Finder, wanted: &Wanted, body: &[u8]) -> Result<Answer, Failure> {
    let picture = Picture::decode(body)?;
    let faces = finder.find(&picture, wanted.min_face);
    if wanted.picture {
        let media_type = picture.media_type();
        let bytes = picture.framed(&faces).map_err(Failure::Own)?;
        return Ok(Answer::Picture { media_type, bytes });
    }
    let (width, height) = picture.size();
    Ok(Answer::Json(Found { width, height, faces }))
}

/// What is answered where: calls at every path, health at of-watchdog's.
fn routes(finder: Data<Finder>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config
            .app_data(finder)
            .app_data(PayloadConfig::new(BODY_BYTES_MAX))
            .route("/_/health", web::get().to(HttpResponse::Ok))
            .default_service(web::to(call));
    }
}

/// The port that `PORT` in the environment says.
fn port(told: Result<String, std::env::VarError>) -> Result<u16, String> {
    match told {
        Err(std::env::VarError::NotPresent) => Ok(PORT),
        Err(why) => Err(format!("PORT: {why}")),
        Ok(text) => match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("PORT is {text:?}; it can be 1 to 65535")),
        },
    }
}

/// Serves until SIGTERM or Ctrl-C; calls that run then are answered first.
async fn serve() -> Result<(), String> {
    let port = port(std::env::var("PORT"))?;
    let finder = Data::new(Finder::new()?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // One thread for HTTP, and searches on as many as there are cores: further calls wait, as more
    // at once would only make each slower and take its memory.
    let server = HttpServer::new(move || App::new().configure(routes(finder.clone())))
        .workers(1)
        .worker_max_blocking_threads(cores)
        .bind(("0.0.0.0", port))
        .map_err(|why| format!("0.0.0.0:{port}: {why}"))?;
    println!("fn-face answers at http://0.0.0.0:{port}/");
    server.run().await.map_err(|why| why.to_string())
}

/// Asks the server of this machine whether it serves: for containers' health checks, where there is
/// no other program that could ask.
fn health() -> Result<(), String> {
    let port = port(std::env::var("PORT"))?;
    let asked = || -> std::io::Result<[u8; 12]> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(HEALTH_TIME))?;
        stream.write_all(b"GET /_/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status)
    };
    match asked() {
        Ok(status) if &status == b"HTTP/1.1 200" => Ok(()),
        Ok(status) => Err(String::from_utf8_lossy(&status).into_owned()),
        Err(why) => Err(why.to_string()),
    }
}

#[actix_web::main]
async fn main() -> ExitCode {
    let ended = match std::env::args().nth(1).as_deref() {
        None => serve().await,
        Some("health") => health(),
        Some(other) => Err(format!("{other:?} is no command; health, or none to serve")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fn-face: {why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use serde_json::Value;

    /// The status, content type and body that the server answers.
    async fn answered(request: TestRequest) -> (u16, String, Bytes) {
        let finder = Data::new(Finder::new().expect("a model"));
        let server = init_service(App::new().configure(routes(finder))).await;
        let response = call_service(&server, request.to_request()).await;
        let media_type = response.headers().get("content-type");
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (status, media_type) = (response.status().as_u16(), media_type.to_owned());
        (status, media_type, read_body(response).await)
    }

    /// The number of faces in an answer of JSON.
    async fn faces(request: TestRequest) -> usize {
        let (status, media_type, body) = answered(request).await;
        assert_eq!((status, &*media_type), (200, "application/json"));
        let found: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&found["width"], &found["height"]), (&1666.into(), &1136.into()));
        let faces = found["faces"].as_array().expect("faces");
        for face in faces {
            let keys = ["x", "y", "width", "height", "score"];
            assert!(keys.iter().all(|key| face[key].is_number()), "{face}");
        }
        faces.len()
    }

    /// That `request` is refused with `status`, and that the message holds `named`.
    async fn refused(request: TestRequest, status: u16, named: &str) {
        let (got, media_type, body) = answered(request).await;
        assert_eq!((got, &*media_type), (status, "application/json"), "{named}");
        let told: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(told["code"], 4);
        assert!(told["message"].as_str().expect("a text").contains(named), "{told}");
    }

    #[actix_web::test]
    async fn a_get_without_a_body_works_on_the_test_picture() {
        assert_eq!(faces(TestRequest::get().uri("/")).await, 29);
    }

    #[actix_web::test]
    async fn a_posted_picture_is_answered_with_its_faces_at_every_path() {
        let posted = TestRequest::post().uri("/any/path?who=me").set_payload(TEST_PICTURE);
        assert_eq!(faces(posted).await, 29, "unknown keys of the query are ignored");
    }

    #[actix_web::test]
    async fn the_smallest_face_can_be_asked_for() {
        assert_eq!(faces(TestRequest::get().uri("/?min_face=300")).await, 0);
    }

    #[actix_web::test]
    async fn the_picture_itself_is_answered_in_its_own_format_when_asked_for() {
        let picture = image::load_from_memory(TEST_PICTURE).expect("decodes").to_rgb8();
        let mut jpeg = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).expect("encodes");
        let asked = "/?answer=picture";
        for (request, format) in [
            (TestRequest::get(), image::ImageFormat::Png),
            (TestRequest::post().set_payload(TEST_PICTURE), image::ImageFormat::Png),
            (TestRequest::post().set_payload(jpeg.into_inner()), image::ImageFormat::Jpeg),
        ] {
            let (status, media_type, body) = answered(request.uri(asked)).await;
            assert_eq!((status, &*media_type), (200, format.to_mime_type()));
            assert_eq!(image::guess_format(&body).expect("a picture"), format);
            let framed = image::load_from_memory(&body).expect("decodes").to_rgb8();
            assert_eq!(framed.dimensions(), picture.dimensions());
            assert_ne!(framed.as_raw(), picture.as_raw());
        }
    }

    #[actix_web::test]
    async fn what_is_wrong_with_a_query_is_named() {
        let get = |query: &str| TestRequest::get().uri(&format!("/?{query}"));
        refused(get("answer=poem"), 400, "poem").await;
        refused(get("answer="), 400, "answer is \"\"").await;
        refused(get("min_face=19"), 400, "19").await;
        refused(get("min_face=4097"), 400, "4097").await;
        refused(get("min_face=many"), 400, "query").await;
    }

    #[actix_web::test]
    async fn a_body_that_is_empty_or_no_picture_is_named() {
        refused(TestRequest::post().uri("/"), 400, "empty").await;
        refused(TestRequest::post().set_payload("hello"), 400, "neither JPEG nor PNG").await;
        refused(TestRequest::get().set_payload("hello"), 400, "neither JPEG nor PNG").await;
        let half = &TEST_PICTURE[..TEST_PICTURE.len() / 2];
        refused(TestRequest::post().set_payload(half), 400, "cannot be decoded").await;
    }

    #[actix_web::test]
    async fn a_body_or_a_picture_beyond_a_limit_is_refused_with_413_and_the_limit() {
        let large = vec![0; BODY_BYTES_MAX + 1];
        refused(TestRequest::post().set_payload(large), 413, "16777216").await;
        let mut wide = std::io::Cursor::new(Vec::new());
        image::GrayImage::new(faces::SIDE_MAX + 1, 1)
            .write_to(&mut wide, image::ImageFormat::Png)
            .expect("encodes");
        refused(TestRequest::post().set_payload(wide.into_inner()), 413, "16384").await;
    }

    #[actix_web::test]
    async fn health_answers_200_as_of_watchdog_does() {
        let (status, _, body) = answered(TestRequest::get().uri("/_/health")).await;
        assert_eq!((status, body.len()), (200, 0));
    }

    #[test]
    fn the_port_comes_from_the_environment_and_a_wrong_one_is_named() {
        assert_eq!(port(Err(std::env::VarError::NotPresent)), Ok(8080));
        assert_eq!(port(Ok("9000".to_owned())), Ok(9000));
        for wrong in ["", "0", "65536", "http"] {
            assert!(port(Ok(wrong.to_owned())).expect_err("wrong").contains(&format!("{wrong:?}")));
        }
    }
}
