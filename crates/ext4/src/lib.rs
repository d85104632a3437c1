//! ext4 images: a streaming writer, and a reader with journal replay.
