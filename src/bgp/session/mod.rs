//! One neighbor's conversation, without I/O (RFC 4271 §8).
