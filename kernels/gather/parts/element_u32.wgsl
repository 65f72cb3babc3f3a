// The element that a kernel moves: one number. Serves any width, offset and stride.
alias Element = u32;
