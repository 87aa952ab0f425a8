//! Options of sockets that std has no name for.

use std::io;
use std::os::fd::BorrowedFd;

/// Bounds what the kernel takes in for a socket before it is read (socket(7), SO_RCVBUF), in bytes; the kernel may give
/// less, as its own limit says.
pub fn set_receive_buffer(socket: BorrowedFd, bytes: usize) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_recv_buffer_size(socket, bytes)?)
}
