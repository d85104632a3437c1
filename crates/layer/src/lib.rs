//! Container layers: tar streams to ext4 in disk files and back.
