"""CPU kernels of the model library, written in TIR for one packed layout (`rows8/1`).

Every factory returns a `tirx.PrimFunc` for `relax.call_tir` (destination passing: the output is the
last parameter). Integer sizes are fixed when the factory is called, except the number of tokens
`n`: `tokens=1` makes the decode variant (n is 1), `tokens=None` the variant for any n >= 1.
Activations are float32, contiguous, of two dimensions. Nothing here allocates from TVM's workspace.

    isa.Isa                    the variants of a library: Isa.of(abi), from what runs everywhere to
                               the best; isa.target() is the TVM target that a kernel is built for.
                               It is current (`with Target(...)`) where a factory is called, since
                               conversions of float16 depend on it; the kernel bears it as "target"
    layout                     numpy only, imports no tvm: WeightFormat, packed_tensors(), pack(),
                               unpack(), dequantize()

    activations.quantize(isa, k, *, tokens, group=32, dtype="float32")
        (x dtype[n,k]; q i32[n,ng*group/4], scale f32[n,ng], total f32[n,ng])    ng = ceil(k/group)
    activations.rms_norm_quantize(isa, k, eps, *, tokens, group=32)
        (x f32[n,k], weight f32[k]; q, scale, total)
    activations.rms_norm(isa, k, eps, *, tokens)
        (x f32[n,k], weight f32[k]; y f32[n,k])
    activations.norm_add(isa, k, eps, *, tokens)
        (x f32[n,k], y f32[n,k], weight f32[k]; out f32[n,k])          out = x + rms_norm(y, weight)

    matmul.matmul(isa, fmt, rows, k, *, tokens, activations="int8", bias=False, softcap=None,
                  residual=False, dtype="float32", tile=None)
        (weight..., x..., [bias f32[rows]], [residual f32[n,rows]]; y dtype[n,rows])
                           y = x w^T [+ bias], then [softcap * tanh(y / softcap)], then [+ residual]
    matmul.gated_matmul(isa, fmt, rows, k, *, tokens, activations="int8", activation="silu",
                        tile=None)
        (weight..., x...; y f32[n,rows])         weight is gate over up: 2*rows rows, rows % 8 == 0
                                      y = act(x gate^T) * (x up^T), act is "silu" or "gelu_tanh"
    embedding.embedding(isa, fmt, rows, k, *, tokens, scale=1.0)
        (weight..., ids i32[n]; y f32[n,k])        an id outside [0, rows) reads the nearest row
    rotary.rotary(heads, frequencies, *, q_norm, k_norm, eps, tokens)
        (qkv dtype[n,heads,size], positions i32[n], [q_weight f32[size]], [k_weight f32[size]];
         out dtype[n,heads,size])           norms of q and k heads, and RoPE, before the cache
    kv_cache.create_paged_kv_cache(heads, layers, frequencies, *, max_batch, ...)
        TVM's PagedKVCache with the kernels here; heads is heads.Heads(query, key_value, size,
        dtype), dtype the type of the pages, of qkv going in and of the output ("float16" or
        "float32"): matmul's dtype makes the one, quantize's dtype takes the other; its window is
        that of layers whose scale heads.layer_scale marked; frequencies None: no RoPE there

`weight...` is one parameter for each tensor of `layout.packed_tensors(fmt, rows, k)`, in its order.
`x...` is `x f32[n,k]` for a format that is not quantized and with `activations="float32"`, else
`q, scale, total` as the activation kernels write them with `group=fmt.step`: scale = max|x| / 127,
q = x / scale rounded to the nearest even integer (four int8 in one int32, little-endian),
total = scale * sum(q); zeros fill the last group up. With float32 activations, a quantized weight
is first dequantized to exactly the float32 value of `layout.dequantize`.

The layout `rows8/1`
--------------------
A matrix w[rows, k] (y = w x) is cut into blocks of 8 rows, nb = ceil(rows / 8) of them; missing
rows of the last block are zeros. Columns are taken in steps of 32, of 3-bit values in steps of 40:
ns of them. `group` columns share a scale, ng groups in a row; a group's scales (and minima) of the
8 rows lie side by side, so results stay one lane a row. k is a multiple of 32 and of the group, but
any k will do for 3 bits, where the last group is filled up.

    format       group       tensors, in order                                   a weight's value
    q3_sym_f16   40          q_weight i32[nb,ns,32]  q_scale f16[nb,ng,8]           (q-3)*scale
    q4_1         32          q_weight i32[nb,ns,32]  q_scale f16, q_min f16         q*scale + min
    q4_sym_f16   32, 64, 128 q_weight i32[nb,ns,32]  q_scale f16[nb,ng,8]           (q-7)*scale
    q4_sym_bf16  32, 64, 128 q_weight i32[nb,ns,32]  q_scale bf16[nb,ng,8]          (q-7)*scale
    q4_sym_f32   32, 64, 128 q_weight i32[nb,ns,32]  q_scale f32[nb,ng,8]           (q-7)*scale
    q8_0         32, 64, 128 q_weight i32[nb,ns,64]  q_scale f16[nb,ng,8]           q*scale
    f16          -           weight f16[nb,k,8]                                  weight[b,col,row]
    bf16         -           weight bf16[nb,k,8]                                 weight[b,col,row]
    f32          -           weight f32[nb,k,8]                                  weight[b,col,row]

`bf16` is uint16 to numpy and to the kernels: the upper half of a float32's bits. The int32 words
are four little-endian bytes, so that one int32 lane serves one row; four neighbouring columns that
lie in one word are a quad:
- 3 bits: word [b, s, 8*c + r] (chunk c in 0..3, row r in 0..7) holds quads 2*c and 2*c + 1 of step
  s of row 8*b + r: byte j has column 4*(2*c) + j in bits 0..2 and column 4*(2*c + 1) + j in bits
  3..5. Bits 6..7 of chunks 0 and 1 make quad 8, those of chunks 2 and 3 quad 9: its two lower bits
  are in the first of the two, the third is bit 6 of the second, whose bit 7 is 0.
- 4 bits: word [b, s, 8*c + r] (chunk c in 0..3) holds columns 32*s + 8*c + 0..7 of row 8*b + r:
  byte j has column j in its low nibble and column 4 + j in its high nibble.
- 8 bits: word [b, s, 8*c + r] (chunk c in 0..7) holds columns 32*s + 4*c + 0..3 of row 8*b + r,
  one signed byte each.

The plain forms, which `pack` takes and `unpack` gives back without loss, are MLC's: q_weight
u32[rows, k/8] with column 8*i + j in bits 4*j..4*j+3 of word i, for 3 bits u32[rows, 4*ng] with
column 10*i + j in bits 3*j..3*j+2 of word i; q_scale (and q_min) [rows, ng]; q8_0's q_weight is
i8[rows, k]; a weight that is not quantized is [rows, k].
"""
