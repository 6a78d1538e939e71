//! What a page is: indices, ranges, sets and the memory map.
