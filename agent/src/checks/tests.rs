//! Each way against servers that answer, do not, answer nonsense, or never stop.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type None = std::future::Pending<Result<UnixStream, String>>;

/// Asks, and expects an answer that says something.
async fn ask<S: Future<Output = Result<UnixStream, String>>>(way: Way<S>, wait: Duration) -> Result<(), String> {
    match super::ask(way, wait).await {
        Answer::Well => Ok(()),
        Answer::Unwell(reason) => Err(reason),
        Answer::Nothing => panic!("it says nothing"),
    }
}

/// A server that says `answer` to whoever comes, and goes on with `more` for ever.
async fn server(answer: &'static [u8], more: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1_024];
                let _ = stream.read(&mut asked).await;
                let mut said = stream.write_all(answer).await;
                while said.is_ok() && !more.is_empty() {
                    said = stream.write_all(more).await;
                }
            });
        }
    });
    port
}

async fn http(port: u16, path: &str) -> Result<(), String> {
    ask(Way::<None>::Http { secure: false, port, path: path.into(), ignores_1xx: false }, Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_status_from_200_to_399_is_a_success_and_nothing_else_is() {
    for (answer, well) in [
        (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Ok(())),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
        // Where a redirect leads is not asked.
        (b"HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\n\r\n", Ok(())),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Err("HTTP 100 from :PORT/healthz")),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Err("HTTP 404 from :PORT/healthz")),
        (b"HTTP/1.1 503 \x1b[2J\r\n\r\n", Err("HTTP 503 from :PORT/healthz")),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Err("what :PORT answers is no HTTP")),
        (b"", Err("no answer of :PORT/healthz: it was closed")),
    ] {
        let port = server(answer, b"").await;
        let well = well.map_err(|reason| reason.replace("PORT", &port.to_string()));
        assert_eq!(http(port, "/healthz").await, well, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_status_from_100_to_199_says_nothing_where_that_is_wanted() {
    for (answer, says) in [
        (&b"HTTP/1.1 100 Continue\r\n\r\n"[..], Answer::Nothing),
        (b"HTTP/1.1 199 x\r\n\r\nHTTP/1.1 500 x\r\n\r\n", Answer::Nothing),
        (b"HTTP/1.1 200 OK\r\n\r\n", Answer::Well),
        (b"HTTP/1.1 400 x\r\n\r\n", Answer::Unwell("HTTP 400 from :PORT/".into())),
    ] {
        let port = server(answer, b"").await;
        let way = Way::<None>::Http { secure: false, port, path: "/".into(), ignores_1xx: true };
        let said = match super::ask(way, Duration::from_secs(20)).await {
            Answer::Unwell(reason) => Answer::Unwell(reason.replace(&port.to_string(), "PORT")),
            said => said,
        };
        assert_eq!(said, says, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read_and_a_line_without_end_is_no_answer() {
    let port = server(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1 << 16]).await;
    assert_eq!(http(port, "/").await, Ok(()));
    let port = server(b"HTTP/1.1 200", &[b'x'; 1 << 16]).await;
    assert_eq!(http(port, "/").await, Err(format!("what :{port} answers is no HTTP")));
}

#[tokio::test]
async fn who_takes_no_connection_or_never_answers_is_not_well() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = |port| ask(Way::<None>::Tcp { port }, Duration::from_secs(20));
    assert_eq!(tcp(port).await, Ok(()));
    let silent = ask(Way::<None>::Http { secure: false, port, path: "/x".into(), ignores_1xx: false }, Duration::from_millis(50)).await;
    assert_eq!(silent, Err(format!("no answer of :{port}/x in 50 ms")));
    drop(listener);
    assert_eq!(tcp(port).await, Err(format!("no connection to :{port}: it is refused")));
    assert_eq!(http(port, "/").await, Err(format!("no connection to :{port}: it is refused")));
    let port = server(b"HTTP/1.1 200 OK\r\n\r\n", b"").await;
    let secure = ask(Way::<None>::Http { secure: true, port, path: "/".into(), ignores_1xx: false }, Duration::from_secs(20)).await;
    assert!(secure.as_ref().is_err_and(|reason| reason.starts_with("no TLS")), "{secure:?}");
}

#[tokio::test]
async fn a_program_says_by_its_code_and_its_last_line() {
    use runtime::executor::process::session::{EXIT, FAILED, STDERR, STDOUT, frame};
    let says = |frames: Vec<Vec<u8>>| async move {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            for frame in frames {
                theirs.write_all(&frame).await.unwrap();
            }
            let mut all = vec![];
            theirs.read_to_end(&mut all).await.unwrap();
        });
        ask(Way::Exec("pg_isready".into(), async move { Ok(ours) }), Duration::from_secs(20)).await
    };
    let code = |code: i32| frame(EXIT, &code.to_be_bytes());
    assert_eq!(says(vec![frame(STDOUT, b"fine\n"), code(0)]).await, Ok(()));
    assert_eq!(says(vec![code(2)]).await, Err("pg_isready: exit code 2".into()));
    let long = vec![b'x'; 60_000];
    let last = says(vec![frame(STDOUT, &long), frame(STDERR, b"\nno \x1b[31mresponse\n"), code(1)]).await;
    assert_eq!(last, Err("pg_isready: exit code 1: no \u{fffd}[31mresponse".into()));
    assert!(says(vec![frame(STDOUT, &long), code(1)]).await.is_err_and(|reason| reason.len() <= HEALTH_BYTES_MAX));
    assert_eq!(says(vec![frame(FAILED, b"nothing is not in PATH")]).await, Err("pg_isready: nothing is not in PATH".into()));
}
