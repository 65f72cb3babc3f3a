// What a kernel that moves bits moves at a time: four neighbouring numbers, where widths, offsets and strides allow it.
// @slot element: Element
alias Element = vec4<u32>;
