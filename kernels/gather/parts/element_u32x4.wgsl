// The element that a kernel moves: four neighbouring numbers, where widths, offsets and strides are multiples of 4.
// @slot element: Element
alias Element = vec4<u32>;
