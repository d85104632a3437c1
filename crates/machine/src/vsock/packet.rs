//! Decides how a vsock packet's header reads and writes (VIRTIO 1.2, section 5.10.6).

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header's length in bytes.
pub(crate) const HEADER_LEN: usize = 44;

/// The same, as the rings count.
pub(crate) const HEADER_LEN_U32: u32 = 44;

const _: () = assert!(size_of::<[u8; HEADER_LEN_U32 as usize]>() == HEADER_LEN);

/// The CID of the host.
pub(crate) const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(crate) const TYPE_STREAM: u16 = 1;

/// An operation, `VIRTIO_VSOCK_OP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Op(pub(crate) u16);

impl Op {
    pub(crate) const REQUEST: Self = Self(1);
    pub(crate) const RESPONSE: Self = Self(2);
    pub(crate) const RST: Self = Self(3);
    pub(crate) const SHUTDOWN: Self = Self(4);
    pub(crate) const RW: Self = Self(5);
    pub(crate) const CREDIT_UPDATE: Self = Self(6);
    pub(crate) const CREDIT_REQUEST: Self = Self(7);
}

/// The directions that a SHUTDOWN's sender closes, `VIRTIO_VSOCK_SHUTDOWN_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shutdown(pub(crate) u32);

impl Shutdown {
    pub(crate) const NONE: Self = Self(0);
    /// The sender will receive no more.
    pub(crate) const RECEIVE: Self = Self(1);
    /// The sender will send no more.
    pub(crate) const SEND: Self = Self(2);
    pub(crate) const BOTH: Self = Self(3);

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets; bits without a meaning are left out.
    pub(crate) fn with(self, other: Self) -> Self {
        Self((self.0 | other.0) & Self::BOTH.0)
    }
}

/// A connection's two ports; the CIDs are always the host's and the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    src_cid: U64,
    dst_cid: U64,
    src_port: U32,
    dst_port: U32,
    len: U32,
    r#type: U16,
    op: U16,
    flags: U32,
    buf_alloc: U32,
    fwd_cnt: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    /// Bytes of payload.
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: Op,
    pub(crate) flags: u32,
    /// The sender's whole receive buffer, in bytes.
    pub(crate) buf_alloc: u32,
    /// The bytes the sender has taken out of it since the start, modulo 2³².
    pub(crate) fwd_cnt: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let raw = RawHeader::read_from_bytes(bytes.as_slice())
            .expect("the array has the header's length");
        Self {
            src_cid: raw.src_cid.get(),
            dst_cid: raw.dst_cid.get(),
            src_port: raw.src_port.get(),
            dst_port: raw.dst_port.get(),
            len: raw.len.get(),
            kind: raw.r#type.get(),
            op: Op(raw.op.get()),
            flags: raw.flags.get(),
            buf_alloc: raw.buf_alloc.get(),
            fwd_cnt: raw.fwd_cnt.get(),
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let raw = RawHeader {
            src_cid: self.src_cid.into(),
            dst_cid: self.dst_cid.into(),
            src_port: self.src_port.into(),
            dst_port: self.dst_port.into(),
            len: self.len.into(),
            r#type: self.kind.into(),
            op: self.op.0.into(),
            flags: self.flags.into(),
            buf_alloc: self.buf_alloc.into(),
            fwd_cnt: self.fwd_cnt.into(),
        };
        zerocopy::transmute!(raw)
    }

    /// A packet from the host to the guest on `key`.
    pub(crate) fn to_guest(guest_cid: u64, key: Key, op: Op) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The connection of a packet that the guest sent.
    pub(crate) fn key_from_guest(&self) -> Key {
        Key {
            host_port: self.dst_port,
            guest_port: self.src_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let mut header = Header::to_guest(
            3,
            Key {
                host_port: 0x4000_0000,
                guest_port: 0x0102_0304,
            },
            Op::SHUTDOWN,
        );
        header.len = 7;
        header.flags = 2;
        header.buf_alloc = 0x11;
        header.fwd_cnt = 0x22;
        let bytes = header.encode();
        let expected: [u8; HEADER_LEN] = [
            2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 4, 3, 2, 1, 7, 0, 0, 0,
            1, 0, 4, 0, 2, 0, 0, 0, 0x11, 0, 0, 0, 0x22, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_and_encode_back(
            bytes in proptest::collection::vec(any::<u8>(), HEADER_LEN)
        ) {
            let bytes: [u8; HEADER_LEN] = bytes.try_into().unwrap();
            prop_assert_eq!(Header::parse(&bytes).encode(), bytes);
        }
    }
}
