"""CPU kernels of the model library, written in TIR for one packed layout (`rows8/1`).

Every factory returns a `tirx.PrimFunc` for `relax.call_tir` (destination passing: the output is the
last parameter). Integer sizes are fixed when the factory is called, except the number of tokens
`n`: `tokens=1` makes the decode variant (n is 1), `tokens=None` the variant for any n >= 1.
Activations are float32, contiguous, of two dimensions. Nothing here allocates from TVM's workspace.

    isa.Isa                    X86_64_V3 (AVX2, FMA, F16C) or ARMV8_2_DOTPROD; Isa.of(abi), and
                               isa.target() is the TVM target to build a model library with
    layout                     numpy only, imports no tvm: WeightFormat, packed_tensors(), pack(),
                               unpack(), dequantize()

    activations.quantize(isa, k, *, tokens, dtype="float32")
        (x dtype[n,k]; q i32[n,k/4], scale f32[n,k/32], total f32[n,k/32])
    activations.rms_norm_quantize(isa, k, eps, *, tokens)
        (x f32[n,k], weight f32[k]; q, scale, total)
    activations.rms_norm(isa, k, eps, *, tokens)
        (x f32[n,k], weight f32[k]; y f32[n,k])

    matmul.matmul(isa, fmt, rows, k, *, tokens, residual=False, dtype="float32")
        (weight..., x..., [residual f32[n,rows]]; y dtype[n,rows])           y = x w^T [+ residual]
    matmul.gated_matmul(isa, fmt, rows, k, *, tokens)
        (weight..., x...; y f32[n,rows])         weight is gate over up: 2*rows rows, rows % 8 == 0
                                                                     y = silu(x gate^T) * (x up^T)
    embedding.embedding(isa, fmt, rows, k, *, tokens)
        (weight..., ids i32[n]; y f32[n,k])        an id outside [0, rows) reads the nearest row
    kv_cache.create_paged_kv_cache(heads, layers, frequencies, *, max_batch, ...)
        TVM's PagedKVCache with the kernels here; heads is attention.Heads(query, key_value, size,
        dtype), dtype the type of the pages, of qkv going in and of the output ("float16" or
        "float32"): matmul's dtype makes the one, quantize's dtype takes the other

`weight...` is one parameter for each tensor of `layout.packed_tensors(fmt, rows, k)`, in its order.
`x...` is `x f32[n,k]` for WeightFormat.F32, else `q i32[n,k/4], scale f32[n,k/32],
total f32[n,k/32]` as the activation kernels write them: in groups of 32, scale = max|x| / 127,
q = x / scale rounded to the nearest even integer (four int8 in one int32, little-endian),
total = scale * sum(q).

The layout `rows8/1`
--------------------
A matrix w[rows, k] (y = w x) is cut into blocks of 8 rows; missing rows of the last block are
zeros. nb = ceil(rows / 8) blocks, ng = k / 32 groups; k is a multiple of 32. A group's scales (and
minima) of the 8 rows lie side by side, so results stay one lane a row.

    format      tensors, in order                                              a weight's value
    q4_1        q_weight i32[nb,ng,32]  q_scale f16[nb,ng,8]  q_min f16[nb,ng,8]   q*scale + min
    q4_sym_f16  q_weight i32[nb,ng,32]  q_scale f16[nb,ng,8]                       (q-7)*scale
    q4_sym_f32  q_weight i32[nb,ng,32]  q_scale f32[nb,ng,8]                       (q-7)*scale
    q8_0        q_weight i32[nb,ng,64]  q_scale f16[nb,ng,8]                       q*scale
    f32         weight   f32[nb,k,8]                                               weight[b,col,row]

The int32 words are four little-endian bytes, so that one int32 lane serves one row:
- 4 bits: word [b, g, 8*c + r] (chunk c in 0..3, row r in 0..7) holds columns 32*g + 8*c + 0..7 of
  row 8*b + r: byte j has column j in its low nibble and column 4 + j in its high nibble.
- 8 bits: word [b, g, 8*c + r] (chunk c in 0..7) holds columns 32*g + 4*c + 0..3 of row 8*b + r,
  one signed byte each.

The plain forms, which `pack` takes and `unpack` gives back without loss, are MLC's: q_weight
u32[rows, k/8] with column 8*i + j in bits 4*j..4*j+3 of word i, q_scale (and q_min) [rows, ng];
q8_0's q_weight is i8[rows, k]; f32's weight is f32[rows, k].
"""
