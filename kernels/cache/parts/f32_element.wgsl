// The element of a kernel of the cache: one number. Serves any width.
alias Element = f32;
