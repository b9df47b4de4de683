//! Whole files and disks against a server in memory: what was cut off is never said to be stored.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use crate::dial::Dialled;
use crate::error::Error;
use crate::wire::classic_file::{FileMessage, FilePut, FileType};
use crate::wire::frames::{Decoder, Incoming, head};
use crate::{DiskSpec, NfcFiles, NfcOptions};

const PATH: &str = "[ds1] web/web.vmdk";

/// A connection over a pipe of so many bytes, and its other end.
fn connected(pipe: usize) -> (NfcFiles, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let (reader, writer) = tokio::io::split(ours);
    let stream =
        Dialled { reader: Box::new(reader), writer: Box::new(writer), send_client_random: false, tls_version: None };
    (NfcFiles::on(stream, &NfcOptions::default()), theirs)
}

/// Takes nothing for a while, and then whatever comes; says that it is stored when it is told that it is whole.
fn credulous(mut stream: DuplexStream, path_len: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut first = vec![0; 264 + path_len];
        if stream.read_exact(&mut first).await.is_err() {
            return;
        }
        let (mut decoder, mut received) = (Decoder::default(), BytesMut::new());
        loop {
            match decoder.next(&mut received) {
                Ok(Some(Incoming::End)) => {
                    let _ = stream.write_all(&FileMessage::PutDone.encode()).await;
                }
                Ok(Some(_)) => {}
                Ok(None) => match stream.read_buf(&mut received).await {
                    Ok(1..) => {}
                    _ => return,
                },
                Err(_) => return,
            }
        }
    })
}

/// Says so much when it has been asked for the file.
fn says(mut stream: DuplexStream, bytes: Vec<u8>) -> JoinHandle<DuplexStream> {
    tokio::spawn(async move {
        stream.read_exact(&mut vec![0; 264 + PATH.len() + 1]).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream
    })
}

#[tokio::test(start_paused = true)]
async fn disk_whose_data_was_dropped_on_its_way_is_not_finished() {
    let (mut files, theirs) = connected(600_000);
    let server = credulous(theirs, PATH.len() + 1);
    let mut disk = files.put_disk(PATH, &DiskSpec::new(4 << 20)).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_secs(1), disk.data(Bytes::from(vec![1; 1 << 20]))).await;
    assert!(dropped.is_err(), "the pipe is full");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = disk.data(Bytes::from(vec![2; 512])).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    let error = disk.finish().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    drop(files);
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn file_whose_bytes_were_dropped_on_their_way_is_not_finished() {
    let (mut files, theirs) = connected(64 << 10);
    let server = credulous(theirs, PATH.len() + 1);
    let mut file = files.put_file(PATH, 300_000).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_secs(1), file.write(Bytes::from(vec![1; 200_000]))).await;
    assert!(dropped.is_err(), "the pipe is full");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = file.write(Bytes::from(vec![2; 100_000])).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    let error = file.finish().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    drop(files);
    server.await.unwrap();
}

#[tokio::test]
async fn long_transfer_may_have_many_pings_though_few_in_a_row() {
    let (mut files, theirs) = connected(1 << 20);
    let put = |path_len| {
        FileMessage::Put(FilePut { file_type: FileType::Raw, conversion: 0, path_len, size: 400, space: 400 })
    };
    let mut said = FileMessage::with_path(PATH, put).unwrap();
    for _ in 0..100 {
        for message in [FileMessage::Ping, FileMessage::RateControl] {
            said.extend(message.encode());
        }
        said.extend(head(4));
        said.extend(b"byte");
    }
    said.extend(head(0));
    let server = says(theirs, said);
    let mut file = files.get_file(PATH).await.unwrap();
    let mut len = 0;
    while let Some(bytes) = file.next().await.unwrap() {
        len += bytes.len();
    }
    assert_eq!(len, 400);
    let _server = says(server.await.unwrap(), FileMessage::Ping.encode().repeat(17));
    let error = files.delete(PATH).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn disk_behind_a_frame_that_makes_no_sense_is_not_read_on() {
    let (mut files, theirs) = connected(1 << 20);
    let put = |path_len| {
        FileMessage::Put(FilePut { file_type: FileType::Disk, conversion: 0, path_len, size: 1024, space: 1024 })
    };
    let mut said = FileMessage::with_path(PATH, put).unwrap();
    let zeros = |sectors: u32| [0x8765_4321, 0, 0x1234_5678, sectors].map(u32::to_le_bytes).concat();
    let bad = [zeros(1), vec![0; 8]].concat();
    for frame in [bad, zeros(1)] {
        said.extend(head(frame.len() as u32));
        said.extend(frame);
    }
    let _server = says(theirs, said);
    let mut disk = files.get_disk(PATH).await.unwrap();
    assert!(matches!(disk.next().await, Err(Error::Protocol { .. })));
    let error = disk.next().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
}
