"""A family's equations as calls of the packed kernels inside a Relax function.

Between blocks, activations are float32 matrices [n, features]. With activations in int8, a matrix
that is quantized takes them rounded in groups, for all its rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx

from harness.compiler.architectures.ops import Activation
from harness.compiler.architectures.parameters import Matrix, Parameter, Vector
from harness.compiler.kernels import activations, embedding, ir, matmul, rotary
from harness.compiler.kernels.choice import choose
from harness.compiler.kernels.heads import Heads, layer_scale
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat, packed_tensors
from harness.compiler.kernels.matmul import ActivationType
from harness.compiler.kernels.plain_cache import Items
from harness.compiler.model_config import DecoderConfig

Expr = Any


@dataclass(frozen=True)
class Normed:
    """The norm of a matrix [n, features], made in the form that its reader takes."""

    x: Expr
    weight: str


class Kernels:
    """The kernels of one library: each variant is made once.

    They are those written by hand, or with `items` the plain ones, run so.
    """

    def __init__(self, builder: relax.BlockBuilder, isa: Isa, items: Items | None) -> None:
        self.builder = builder
        self.isa = isa
        self.items = items
        self._made: dict[tuple[Any, ...], Any] = {}

    def get(self, factory: Callable[..., tirx.PrimFunc], *args: Any, **options: Any) -> Any:
        """The function that `factory(isa, *args, **options)` makes, as a global variable."""
        key = (factory.__name__, args, tuple(sorted(options.items())))
        if key not in self._made:
            function = choose(factory, self.items)(self.isa, *args, **options)
            # Under one symbol of its own each: the builder finds names that are free.
            function = function.without_attr("global_symbol")
            self._made[key] = self.builder.add_func(ir.for_processor(function), factory.__name__)
        return self._made[key]


class Parameters:
    """The last argument of every function: all of the model's tensors, in order."""

    def __init__(self, items: Sequence[Parameter], formats: Mapping[str, WeightFormat]) -> None:
        self.formats = formats
        self.matrices = {item.name: item for item in items if isinstance(item, Matrix)}
        self.specs: list[tuple[str, tuple[int, ...], str]] = []
        for item in items:
            if isinstance(item, Vector):
                self.specs.append((item.name, (item.size,), "float32"))
                continue
            for part in packed_tensors(formats[item.name], item.rows, item.columns):
                self.specs.append((item.tensor(part.part), part.shape, part.dtype))
        self._index = {name: index for index, (name, _, _) in enumerate(self.specs)}

    def variable(self) -> relax.Var:
        """A fresh argument."""
        return relax.Var("params", relax.AnyType())

    def get(self, builder: relax.BlockBuilder, params: relax.Var, name: str) -> Expr:
        """Emit the tensor of this name out of the argument.

        The argument has no type of its own, else every call would check hundreds of tensors;
        kernels check what they are given.
        """
        index = self._index[name]
        _, shape, dtype = self.specs[index]
        return builder.emit(
            relax.call_pure_packed(
                "vm.builtin.tuple_getitem",
                params,
                relax.prim_value(index),
                ty_args=relax.TensorType(shape, dtype),
            )
        )


@dataclass(frozen=True)
class Library:
    """What the functions of one library share."""

    config: DecoderConfig
    kv_dtype: str
    activations: ActivationType
    """What quantized matrices are multiplied with."""
    kernels: Kernels
    parameters: Parameters
    fuses_norms: bool
    """Whether a norm is rounded by the kernel that makes it."""
    tile: int | None = None
    """Tokens of a tile of the products written by hand, else the kernels' own number."""

    @property
    def tiling(self) -> Mapping[str, int]:
        """What says so to a product."""
        return {} if self.tile is None else {"tile": self.tile}

    @property
    def heads(self) -> Heads:
        """The attention of all layers."""
        config = self.config
        return Heads(
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            self.kv_dtype,
            window=config.sliding_window if any(config.windowed_layers) else None,
            softcap=config.attention_softcap,
        )


@dataclass(frozen=True)
class Arguments:
    """The arguments of the function that is being built."""

    params: relax.Var
    ids: relax.Var | None = None
    kv: relax.Var | None = None
    positions: relax.Var | None = None
    """int32 [n], where the model rotates its heads before the cache does."""


class Blocks:
    """The operations of `ops.Ops` as calls emitted into the function that the builder is in.

    `tokens` is 1 where the number of rows is known to be one (the decode variants of kernels),
    else None; `n` is that number as Relax has it. An input is a tensor, or a norm that is made
    together with its rounding for the matrix that reads it.
    """

    def __init__(self, library: Library, arguments: Arguments, tokens: int | None, n: Any) -> None:
        self.library = library
        self.config = library.config
        self.builder = library.kernels.builder
        self.kernels = library.kernels
        self.parameters = library.parameters
        self.arguments = arguments
        self.tokens = tokens
        self.n = n

    def single(self) -> Blocks:
        """The same for exactly one row."""
        return Blocks(self.library, self.arguments, 1, 1)

    def embed(self, table: str, scale: float = 1.0) -> Expr:
        item = self.parameters.matrices[table]
        args = (self._format(item), item.rows, item.columns)
        kernel = self.kernels.get(embedding.embedding, *args, tokens=None, scale=scale)
        return self._call(kernel, [*self._weight(item), self.arguments.ids], item.columns)

    def norm(self, x: Expr, weight: str) -> Normed:
        return Normed(x, weight)

    def attention(
        self,
        layer: int,
        x: Expr | Normed,
        qkv: str,
        *,
        bias: str | None = None,
        q_norm: str | None = None,
        k_norm: str | None = None,
    ) -> Expr:
        config, heads = self.config, self.library.heads
        shape = (self.n, heads.query + 2 * heads.key_value, heads.size)
        fused = self._matmul(self.parameters.matrices[qkv], x, bias=bias, dtype=heads.dtype)
        fused = self.reshape(fused, shape)
        if self.arguments.positions is not None:
            fused = self._rotary(layer, fused, q_norm, k_norm)
        windowed = config.window(layer) is not None
        mixed = self.builder.emit(
            relax.call_dps_packed(
                "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                [
                    self.arguments.kv,
                    relax.prim_value(layer),
                    relax.prim_value(layer_scale(config.query_scale, windowed=windowed)),
                    fused,
                ],
                out_ty=relax.TensorType((self.n, heads.query, heads.size), heads.dtype),
            )
        )
        return self.reshape(mixed, (self.n, heads.query * heads.size))

    def linear(self, matrix: str, x: Expr | Normed, *, residual: Expr | None = None) -> Expr:
        return self._matmul(self.parameters.matrices[matrix], x, residual=residual)

    def gated(self, matrix: str, x: Expr | Normed, activation: Activation) -> Expr:
        item = self.parameters.matrices[matrix]
        rows = item.rows // 2
        kernel = self.kernels.get(
            matmul.gated_matmul,
            self._format(item),
            rows,
            item.columns,
            tokens=self.tokens,
            activations=self.library.activations,
            activation=activation,
            **self.library.tiling,
        )
        return self._call(kernel, [*self._weight(item), *self._input(x, item)], rows)

    def add_norm(self, x: Expr, y: Expr, weight: str) -> Expr:
        hidden, epsilon = self.config.hidden_size, self.config.rms_norm_eps
        kernel = self.kernels.get(activations.norm_add, hidden, epsilon, tokens=self.tokens)
        return self._call(kernel, [x, y, self._parameter(weight)], hidden)

    def logits(self, matrix: str, x: Expr | Normed, *, softcap: float | None = None) -> Expr:
        return self._matmul(self.parameters.matrices[matrix], x, softcap=softcap)

    def last_row(self, x: Expr, features: int) -> Expr:
        """The last of n rows, [1, features]."""
        kernel = self.kernels.get(_last_row, features)
        return self.builder.emit(
            relax.call_tir(kernel, [x], relax.TensorType((1, features), "float32"))
        )

    def reshape(self, x: Expr, shape: Sequence[Any]) -> Expr:
        """The same values in another shape, not copied."""
        return self.builder.emit(relax.op.reshape(x, tuple(shape)))

    def _rotary(self, layer: int, fused: Expr, q_norm: str | None, k_norm: str | None) -> Expr:
        config = self.config
        kernel = self.kernels.get(
            _rotary,
            self.kernels.items,
            self.library.heads,
            config.layer_rope(layer).frequencies(config.head_dim),
            q_norm=q_norm is not None,
            k_norm=k_norm is not None,
            eps=config.rms_norm_eps,
            tokens=self.tokens,
        )
        norms = [self._parameter(name) for name in (q_norm, k_norm) if name is not None]
        args = [fused, self.arguments.positions, *norms]
        return self.builder.emit(relax.call_tir(kernel, args, fused.ty))

    def _matmul(
        self,
        w: Matrix,
        x: Expr | Normed,
        *,
        bias: str | None = None,
        softcap: float | None = None,
        residual: Expr | None = None,
        dtype: str = "float32",
    ) -> Expr:
        kernel = self.kernels.get(
            matmul.matmul,
            self._format(w),
            w.rows,
            w.columns,
            tokens=self.tokens,
            activations=self.library.activations,
            bias=bias is not None,
            softcap=softcap,
            residual=residual is not None,
            dtype=dtype,
            **self.library.tiling,
        )
        args = [*self._weight(w), *self._input(x, w)]
        if bias is not None:
            args.append(self._parameter(bias))
        if residual is not None:
            args.append(residual)
        return self._call(kernel, args, w.rows, dtype)

    def _input(self, x: Expr | Normed, reader: Matrix) -> list[Expr]:
        """`x` as the kernel of `reader` takes it: float32, or int8 with its scales."""
        k, fmt, tokens = reader.columns, self._format(reader), self.tokens
        rounded = fmt.quantized and self.library.activations == "int8"
        epsilon = self.config.rms_norm_eps
        if isinstance(x, Normed) and not (rounded and self.library.fuses_norms):
            kernel = self.kernels.get(activations.rms_norm, k, epsilon, tokens=tokens)
            x = self._call(kernel, [x.x, self._parameter(x.weight)], k)
        options = {"tokens": tokens, "group": fmt.step}
        if isinstance(x, Normed):
            args = [x.x, self._parameter(x.weight)]
            kernel = self.kernels.get(activations.rms_norm_quantize, k, epsilon, **options)
        else:
            args, dtype = [x], str(x.ty.dtype)
            if not rounded:
                return args if dtype == "float32" else [self._widen(x, k, dtype)]
            kernel = self.kernels.get(activations.quantize, k, dtype=dtype, **options)
        steps = fmt.steps(k)
        types = [
            relax.TensorType((self.n, steps * fmt.step // 4), "int32"),
            relax.TensorType((self.n, steps), "float32"),
            relax.TensorType((self.n, steps), "float32"),
        ]
        made = self.builder.emit(relax.call_tir(kernel, args, types))
        return [self.builder.emit(relax.TupleGetItem(made, i)) for i in range(3)]

    def _widen(self, x: Expr, features: int, dtype: str) -> Expr:
        """The same values in float32."""
        return self._call(self.kernels.get(_to_float32, features, dtype), [x], features)

    def _call(self, kernel: Any, args: list[Expr], features: int, dtype: str = "float32") -> Expr:
        out = relax.TensorType((self.n, features), dtype)
        return self.builder.emit(relax.call_tir(kernel, args, out))

    def _format(self, matrix: Matrix) -> WeightFormat:
        return self.parameters.formats[matrix.name]

    def _weight(self, matrix: Matrix) -> list[Expr]:
        parts = packed_tensors(self._format(matrix), matrix.rows, matrix.columns)
        return [self._parameter(matrix.tensor(part.part)) for part in parts]

    def _parameter(self, name: str) -> Expr:
        return self.parameters.get(self.builder, self.arguments.params, name)


def _rotary(
    isa: Isa,
    items: Items | None,
    heads: Heads,
    frequencies: tuple[float, ...],
    **options: Any,
) -> tirx.PrimFunc:
    return choose(rotary.rotary, items)(heads, frequencies, **options)


def _last_row(isa: Isa, features: int) -> tirx.PrimFunc:
    n = tirx.Var("n", "int64")
    x = te.placeholder((n, features), "float32", name="x")
    y = te.compute((1, features), lambda i, j: x[n - 1 + i, j], name="y")
    return te.create_prim_func([x, y])


def _to_float32(isa: Isa, features: int, dtype: str) -> tirx.PrimFunc:
    n = tirx.Var("n", "int64")
    x = te.placeholder((n, features), dtype, name="x")
    y = te.compute((n, features), lambda i, j: x[i, j].astype("float32"), name="y")
    return te.create_prim_func([x, y])
