"""A family's equations as calls of the packed kernels inside a Relax function.

Between blocks, activations are float32 matrices [n, features]. A matrix that is quantized takes
them as int8 in groups; they are rounded once, where they are made, for all that read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx

from harness.compiler.architectures.parameters import Matrix, Parameter, Vector
from harness.compiler.kernels import activations, embedding, matmul
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import GROUP, WeightFormat, packed_tensors
from harness.compiler.model_config import DecoderConfig

Expr = Any


@dataclass(frozen=True)
class Normed:
    """The norm of a matrix [n, features], made in the form that its reader takes."""

    x: Expr
    weight: str


class Kernels:
    """The kernels of one library: each variant is made once."""

    def __init__(self, builder: relax.BlockBuilder, isa: Isa) -> None:
        self.builder = builder
        self.isa = isa
        self._made: dict[tuple[Any, ...], Any] = {}

    def get(self, factory: Callable[..., tirx.PrimFunc], *args: Any, **options: Any) -> Any:
        """The function that `factory(isa, *args, **options)` makes, as a global variable."""
        key = (factory.__name__, args, tuple(sorted(options.items())))
        if key not in self._made:
            function = factory(self.isa, *args, **options)
            # Under one symbol of its own each: the builder finds names that are free.
            function = function.without_attr("global_symbol")
            self._made[key] = self.builder.add_func(function, factory.__name__)
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
class Arguments:
    """The arguments of the function that is being built."""

    params: relax.Var
    ids: relax.Var | None = None
    kv: relax.Var | None = None


class Blocks:
    """The operations of `ops.Ops` as calls emitted into the function that the builder is in.

    `tokens` is 1 where the number of rows is known to be one (the decode variants of kernels),
    else None; `n` is that number as Relax has it. An input is a tensor, or a norm that is made
    together with its rounding for the matrix that reads it.
    """

    def __init__(
        self,
        kernels: Kernels,
        parameters: Parameters,
        config: DecoderConfig,
        kv_dtype: str,
        arguments: Arguments,
        tokens: int | None,
        n: Any,
    ) -> None:
        self.builder = kernels.builder
        self.kernels = kernels
        self.parameters = parameters
        self.config = config
        self.kv_dtype = kv_dtype
        self.arguments = arguments
        self.tokens = tokens
        self.n = n

    def single(self) -> Blocks:
        """The same for exactly one row."""
        return Blocks(
            self.kernels, self.parameters, self.config, self.kv_dtype, self.arguments, 1, 1
        )

    def embed(self, table: str, scale: float = 1.0) -> Expr:
        item = self.parameters.matrices[table]
        args = (self._format(item), item.rows, item.columns)
        kernel = self.kernels.get(embedding.embedding, *args, tokens=None)
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
        config = self.config
        heads, size = config.num_attention_heads, config.head_dim
        rows = heads + 2 * config.num_key_value_heads
        fused = self._matmul(self.parameters.matrices[qkv], x, dtype=self.kv_dtype)
        mixed = self.builder.emit(
            relax.call_dps_packed(
                "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                [
                    self.arguments.kv,
                    relax.prim_value(layer),
                    relax.prim_value(config.query_scale),
                    self.reshape(fused, (self.n, rows, size)),
                ],
                out_ty=relax.TensorType((self.n, heads, size), self.kv_dtype),
            )
        )
        return self.reshape(mixed, (self.n, heads * size))

    def linear(self, matrix: str, x: Expr | Normed, *, residual: Expr | None = None) -> Expr:
        return self._matmul(self.parameters.matrices[matrix], x, residual=residual)

    def gated(self, matrix: str, x: Expr | Normed, activation: str) -> Expr:
        item = self.parameters.matrices[matrix]
        rows = item.rows // 2
        args = (self._format(item), rows, item.columns)
        kernel = self.kernels.get(matmul.gated_matmul, *args, tokens=self.tokens)
        return self._call(kernel, [*self._weight(item), *self._input(x, item)], rows)

    def add_norm(self, x: Expr, y: Expr, weight: str) -> Expr:
        raise NotImplementedError

    def logits(self, matrix: str, x: Expr | Normed, *, softcap: float | None = None) -> Expr:
        return self._matmul(self.parameters.matrices[matrix], x)

    def last_row(self, x: Expr, features: int) -> Expr:
        """The last of n rows, [1, features]."""
        kernel = self.kernels.get(_last_row, features)
        return self.builder.emit(
            relax.call_tir(kernel, [x], relax.TensorType((1, features), "float32"))
        )

    def reshape(self, x: Expr, shape: Sequence[Any]) -> Expr:
        """The same values in another shape, not copied."""
        return self.builder.emit(relax.op.reshape(x, tuple(shape)))

    def _matmul(
        self,
        w: Matrix,
        x: Expr | Normed,
        *,
        residual: Expr | None = None,
        dtype: str = "float32",
    ) -> Expr:
        kernel = self.kernels.get(
            matmul.matmul,
            self._format(w),
            w.rows,
            w.columns,
            tokens=self.tokens,
            residual=residual is not None,
            dtype=dtype,
        )
        args = [*self._weight(w), *self._input(x, w), *([] if residual is None else [residual])]
        return self._call(kernel, args, w.rows, dtype)

    def _input(self, x: Expr | Normed, reader: Matrix) -> list[Expr]:
        """`x` as the kernel of `reader` takes it: float32, or int8 with its scales."""
        k, rounded = reader.columns, self._format(reader) != WeightFormat.F32
        if isinstance(x, Normed):
            epsilon, args = self.config.rms_norm_eps, [x.x, self._parameter(x.weight)]
            if not rounded:
                kernel = self.kernels.get(activations.rms_norm, k, epsilon, tokens=self.tokens)
                return [self._call(kernel, args, k)]
            kernel = self.kernels.get(activations.rms_norm_quantize, k, epsilon, tokens=self.tokens)
        elif not rounded:
            return [x]
        else:
            args, dtype = [x], str(x.ty.dtype)
            kernel = self.kernels.get(activations.quantize, k, tokens=self.tokens, dtype=dtype)
        types = [
            relax.TensorType((self.n, k // 4), "int32"),
            relax.TensorType((self.n, k // GROUP), "float32"),
            relax.TensorType((self.n, k // GROUP), "float32"),
        ]
        made = self.builder.emit(relax.call_tir(kernel, args, types))
        return [self.builder.emit(relax.TupleGetItem(made, i)) for i in range(3)]

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


def _last_row(isa: Isa, features: int) -> tirx.PrimFunc:
    n = tirx.Var("n", "int64")
    x = te.placeholder((n, features), "float32", name="x")
    y = te.compute((1, features), lambda i, j: x[n - 1 + i, j], name="y")
    return te.create_prim_func([x, y])
