// What a kernel computes with at a time: four neighbouring numbers, where widths allow it.
alias Real = vec4<f32>;
