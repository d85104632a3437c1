//! Journal replay, in memory.
