use std::io::Write as _;

use super::*;
use crate::ErrorKind;

/// Bytes that differ from place to place.
fn sample(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

/// Gives its bytes in pieces of odd lengths.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 7 % 65_537 + 1;
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

/// Copies the input: every third piece from memory of its own.
fn copy(mut ahead: impl BufRead, mut behind: impl WriteAt) -> io::Result<u64> {
    let mut position = 0;
    for piece in 0.. {
        let bytes = ahead.fill_buf()?;
        let step = bytes.len().min(70_000);
        if step == 0 {
            break;
        }
        match piece % 3 {
            0 => {
                let own = Box::<[u8]>::from(&bytes[..step]);
                behind.write_all_at(position, &own)?;
            }
            _ => behind.write_all_at(position, &bytes[..step])?,
        }
        ahead.consume(step);
        position += step as u64;
    }
    Ok(position)
}

fn copied<W: ReadAt + WriteAt + Send>(input: impl Read, out: W) -> Result<(u64, W)> {
    run(input, out, |ahead, behind| {
        copy(ahead, behind).map_err(|error| Error::io("copy", error))
    })
}

#[test]
fn all_bytes_are_written_where_they_belong() {
    for length in [0, 1, READ - 1, READ, READ + 1, 30_000_001] {
        let data = sample(length);
        let (count, out) = copied(&data[..], Vec::new()).unwrap();
        assert_eq!(count, length as u64);
        assert!(out == data, "{length}");
        let (_, out) = copied(Pieces(&data, 1), Vec::new()).unwrap();
        assert!(out == data, "{length} in pieces");
    }
}

#[test]
fn later_writes_to_a_place_win() {
    let ((), out) = run(io::empty(), Vec::new(), |_, mut behind| {
        for round in 0..100u8 {
            behind.write_all_at(0, &vec![round; 300_000]).unwrap();
        }
        Ok(())
    })
    .unwrap();
    assert!(out == [99; 300_000]);
}

/// An output that takes so many bytes.
struct Full(u64);

impl WriteAt for Full {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        match position + bytes.len() as u64 > self.0 {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for Full {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl ReadAt for Panics {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        panic!("the output's own")
    }
}

#[test]
fn what_was_just_written_can_be_read_back() {
    run(io::empty(), Vec::new(), |_, mut behind| {
        for round in 0..50u8 {
            let mut seen = [0; 4];
            behind.write_all_at(7, &[round; 1000]).unwrap();
            assert_eq!(behind.read_at(1003, &mut seen).unwrap(), 4);
            assert_eq!(seen, [round; 4]);
        }
        assert_eq!(behind.read_at(5000, &mut [0]).unwrap(), 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn reading_back_after_a_failure_tells_it() {
    let done = run(io::empty(), Full(100), |_, mut behind| {
        behind.write_all_at(1000, &[1; 5]).unwrap();
        behind
            .read_at(0, &mut [0])
            .map_err(|error| Error::io("read", error))
    });
    assert_eq!(done.map(|_| ()).unwrap_err().kind(), ErrorKind::NoSpace);
}

#[test]
fn full_output_is_told_wherever_it_happens() {
    let data = sample(20_000_000);
    for room in [0, 1_000_000, data.len() as u64 - 1000] {
        let error = copied(&data[..], Full(room)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    }
}

#[test]
fn failing_output_ends_an_endless_input() {
    let error = copied(io::repeat(1), Full(5_000_000)).map(|_| ());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NoSpace);
}

struct Panics;

impl WriteAt for Panics {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<usize> {
        panic!("the output's own")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
#[should_panic(expected = "the output's own")]
fn panic_of_the_output_comes_out() {
    let _ = copied(io::repeat(1), Panics);
}

#[test]
#[should_panic(expected = "the work's own")]
fn panic_of_the_work_comes_out() {
    let _ = run(io::empty(), Vec::new(), |_, mut behind| -> Result<()> {
        behind.write_all_at(0, &[1; 5]).unwrap();
        panic!("the work's own")
    });
}

struct Fails;

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn what_came_before_a_failing_input_is_seen_first() {
    for before in [0, 100, READ] {
        let data = sample(before);
        run(data.chain(Fails), Vec::new(), |mut ahead, _| {
            let mut got = Vec::new();
            let error = ahead.read_to_end(&mut got).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(got == data);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn input_that_ended_is_not_read_again() {
    /// Says the end once, as a terminal does.
    struct Once(bool);
    impl Read for Once {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!std::mem::replace(&mut self.0, true));
            let _ = buffer;
            Ok(0)
        }
    }
    run(Once(false), Vec::new(), |mut ahead, _| {
        assert!(ahead.fill_buf().unwrap().is_empty());
        assert!(ahead.fill_buf().unwrap().is_empty());
        Ok(())
    })
    .unwrap();
}

#[test]
fn files_that_shrink_or_grow_meanwhile_are_read_as_far_as_they_go() {
    for length in [5_000_000, 11_000_000] {
        let data = sample(8_000_000);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&data).unwrap();
        let input = std::fs::File::open(file.path()).unwrap();
        let (count, out) = run(input, Vec::new(), |mut ahead, behind| {
            ahead.fill_buf().unwrap();
            file.as_file().set_len(length).unwrap();
            copy(ahead, behind).map_err(|error| Error::io("copy", error))
        })
        .unwrap();
        assert_eq!(count, length);
        let kept = data.len().min(out.len());
        assert!(out[..kept] == data[..kept]);
        assert!(out[kept..].iter().all(|byte| *byte == 0));
    }
}
