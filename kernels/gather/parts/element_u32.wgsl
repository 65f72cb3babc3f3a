// What a kernel that moves bits moves at a time: one number. Serves any width, offset and stride.
alias Element = u32;
