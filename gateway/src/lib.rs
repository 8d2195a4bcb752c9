//! The server: transports, the driver that owns clocks and sockets, and the command line.
#![forbid(unsafe_code)]
