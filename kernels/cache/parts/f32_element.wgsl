// What a kernel computes with at a time: one number. Serves any width.
alias Real = f32;
