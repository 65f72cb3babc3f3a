// The element of a kernel of the cache: four neighbouring numbers, where widths are multiples of 4.
alias Element = vec4<f32>;
