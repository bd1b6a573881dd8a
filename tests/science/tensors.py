"""Cases of torch and jax."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["jax", "torch"]


def torch() -> Cases:
    import torch
    import torch.fx
    import torch.nn.utils.prune
    from torch import distributions, nn

    def tensor(**options: Any) -> Any:
        return torch.arange(6.0, **options)

    def with_grad() -> Any:
        value = tensor(requires_grad=True)
        (value * value).sum().backward()
        return value

    def with_note() -> Any:
        value = tensor()
        value.unit = "eV"
        return value

    def seeded(make: Any, seed: int = 1) -> Any:
        def made() -> Any:
            torch.manual_seed(seed)
            return make()

        return made

    def changed(make: Any, change: Any) -> Any:
        def made() -> Any:
            value = make()
            change(value)
            return value

        return made

    def net() -> Any:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    def pair(tied: Any = ()) -> Any:
        one, other = nn.Linear(1, 1), nn.Linear(1, 1)
        for part in (*one.parameters(), *other.parameters()):
            nn.init.ones_(part)
        for name in tied:
            setattr(other, name, getattr(one, name))
        return nn.Sequential(one, other)

    def normed() -> Any:
        return nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))

    def hooked(*hooks: Any) -> Any:
        def made() -> Any:
            value = nn.ReLU()
            value.register_forward_hook(print).remove()
            for hook in hooks:
                value.register_forward_hook(hook)
            return value

        return made

    def trained(rate: float) -> Any:
        def made() -> Any:
            torch.manual_seed(1)
            model = nn.Linear(2, 1)
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            return optimizer

        return made

    def scheduled(step: int) -> Any:
        optimizer = torch.optim.SGD(seeded(lambda: nn.Linear(1, 1))().parameters(), lr=0.1)
        return torch.optim.lr_scheduler.StepLR(optimizer, step)

    def drawn(draws: int) -> Any:
        generator = torch.Generator().manual_seed(3)
        for _ in range(draws):
            torch.rand(2, generator=generator)
        return generator

    pruned = nn.utils.prune.l1_unstructured
    linear = seeded(lambda: nn.Linear(3, 2))
    flat = tensor().reshape(2, 3)
    dtypes = ("float64", "float16", "bfloat16", "int64", "int8", "bool", "complex64")
    coo = torch.sparse_coo_tensor
    spots = [[0, 0], [1, 1]]
    return {
        "tensor": Case(
            tensor,
            [
                lambda: tensor() + 1,
                lambda: tensor().reshape(2, 3),
                lambda: tensor(requires_grad=True),
                with_grad,
                with_note,
                lambda: -tensor(),
                lambda: nn.Parameter(tensor()),
                lambda: nn.Parameter(tensor(), requires_grad=False),
                lambda: tensor(device="meta"),
                lambda: list(range(6)),
                lambda: tensor().numpy(),
                *(lambda dtype=dtype: tensor().to(getattr(torch, dtype)) for dtype in dtypes),
            ],
            use=lambda value: (value @ value, value.numpy(), value.tolist(), hash(value)),
            equal=[
                lambda: torch.arange(12.0)[::2] / 2,
                lambda: torch.arange(7.0)[:6],
                lambda: tensor().requires_grad_().detach(),
                lambda: tensor(requires_grad=True).requires_grad_(False),
            ],
        ),
        "matrix": Case(
            lambda: flat,
            [flat.t],
            equal=[lambda: flat.t().contiguous().t(), lambda: flat.clone()],
        ),
        "images": Case(
            lambda: torch.ones(1, 2, 3, 4),
            equal=[lambda: torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last)],
        ),
        "conjugate": Case(
            lambda: torch.tensor([1 + 2j]).conj(), equal=[lambda: torch.tensor([1 - 2j])]
        ),
        "empty": Case(lambda: torch.empty(0), [lambda: torch.empty(0, 1)]),
        "gradient": Case(
            with_grad, [lambda: tensor(requires_grad=True)], copies=("deepcopy", "parcel")
        ),
        "scalar": Case(lambda: torch.tensor(1.5), [lambda: torch.tensor([1.5]), lambda: 1.5]),
        "minus zero": Case(lambda: torch.tensor(0.0), [lambda: torch.tensor(-0.0)]),
        "large": Case(lambda: torch.arange(1e5), [lambda: torch.arange(1e5) + 1]),
        "coo": Case(
            lambda: coo(spots, [1.0, 2.0], (2, 2)),
            [
                lambda: coo(spots, [1.0, 3.0], (2, 2)),
                lambda: coo(spots, [1.0, 2.0], (2, 3)),
                lambda: coo(spots, [1.0, 2.0], (2, 2)).coalesce(),
                lambda: coo(spots, [1.0, 2.0], (2, 2)).to_dense(),
            ],
            use=lambda value: (value.to_dense(), value @ torch.ones(2)),
        ),
        "csr": Case(
            lambda: torch.eye(3).to_sparse_csr(),
            [lambda: torch.eye(3).to_sparse_csc(), lambda: 2 * torch.eye(3).to_sparse_csr()],
            use=lambda value: value @ torch.ones(3),
            copies=("parcel",),
        ),
        "quantized": Case(
            lambda: torch.quantize_per_tensor(tensor(), 0.5, 0, torch.qint8),
            [lambda: torch.quantize_per_tensor(tensor(), 0.5, 1, torch.qint8)],
        ),
        "graph": Refused(lambda: tensor(requires_grad=True) * 2, "detach"),
        "storage": Case(
            lambda: tensor().untyped_storage(),
            [lambda: (tensor() + 1).untyped_storage()],
            copies=("copy", "deepcopy"),
        ),
        "dtype": Case(lambda: torch.float32, [lambda: torch.float64, lambda: "torch.float32"]),
        "layout": Case(lambda: torch.strided, [lambda: torch.sparse_coo], copies=()),
        "device": Case(lambda: torch.device("cpu"), [lambda: torch.device("cuda:1")]),
        "size": Case(lambda: torch.Size([2]), [lambda: torch.Size([3]), lambda: (2,)]),
        "generator": Case(
            lambda: torch.Generator().manual_seed(3),
            [lambda: torch.Generator().manual_seed(4), lambda: drawn(1), lambda: drawn(2)],
            use=lambda value: (value.initial_seed(), value.get_state()),
            copies=("parcel",),
        ),
        "linear": Case(
            linear,
            [
                seeded(lambda: nn.Linear(3, 2), 2),
                changed(linear, lambda value: value.eval()),
                changed(linear, lambda value: value.double()),
                changed(linear, lambda value: value.weight.requires_grad_(False)),
                changed(linear, lambda value: value(torch.ones(3)).sum().backward()),
            ],
            use=lambda value: (value(torch.ones(3)), value.state_dict(), list(value.modules())),
        ),
        "network": Case(
            seeded(lambda: net().eval()),
            [seeded(net), changed(seeded(net), lambda value: value(torch.ones(2, 3)))],
            use=lambda value: (value(torch.ones(2, 3)), value.named_parameters(), repr(value)),
        ),
        "tied": Case(
            lambda: pair(tied=("weight",)),
            [
                pair,
                lambda: pair(tied=("bias",)),
                lambda: pair(tied=("weight", "bias")),
                lambda: nn.Sequential(pair(tied=("weight",))),
                lambda: nn.Sequential(pair()),
            ],
            use=lambda value: (value(torch.ones(1)), value.state_dict(), list(value.parameters())),
        ),
        "twice": Case(
            lambda: nn.Sequential(*[nn.ReLU()] * 2), [lambda: nn.Sequential(nn.ReLU(), nn.ReLU())]
        ),
        "order": Case(
            lambda: nn.Sequential(nn.ReLU(), nn.Tanh()),
            [lambda: nn.Sequential(nn.Tanh(), nn.ReLU())],
        ),
        "recurrent": Case(
            seeded(lambda: nn.LSTM(2, 3)),
            [seeded(lambda: nn.GRU(2, 3)), seeded(lambda: nn.LSTM(2, 3), 2)],
            use=lambda value: (value(torch.ones(4, 1, 2)), value.flatten_parameters()),
        ),
        "transformer": Case(
            seeded(lambda: nn.TransformerEncoderLayer(4, 2).eval()),
            use=lambda value: value(torch.ones(1, 1, 4)),
        ),
        "parametrized": Case(
            seeded(normed),
            [seeded(normed, 2), seeded(lambda: nn.Linear(2, 2))],
            use=lambda value: value(torch.ones(2)),
            copies=("deepcopy",),
        ),
        "pruned": Case(
            seeded(lambda: pruned(nn.Linear(2, 2), "weight", amount=1)),
            [seeded(lambda: pruned(nn.Linear(2, 2), "weight", amount=2))],
            use=lambda value: value(torch.ones(2)),
            copies=("parcel",),
        ),
        "lazy": Case(
            lambda: nn.LazyLinear(2), [lambda: nn.LazyLinear(3)], copies=("deepcopy", "parcel")
        ),
        "traced": Case(
            seeded(lambda: torch.fx.symbolic_trace(nn.Linear(1, 1))),
            [seeded(lambda: torch.fx.symbolic_trace(nn.Linear(1, 1)), 2)],
            use=lambda value: value(torch.ones(1)),
        ),
        "limits": Case(
            lambda: torch.finfo(torch.float32),
            [lambda: torch.finfo(torch.float64), lambda: torch.iinfo(torch.int8)],
            copies=(),
        ),
        "hooks": Case(
            hooked(print, repr), [hooked(repr, print), hooked(print), hooked()], copies=()
        ),
        "compiled": Case(
            seeded(lambda: torch.compile(nn.Linear(1, 1))),
            [seeded(lambda: torch.compile(nn.Linear(1, 1)), 2), seeded(lambda: nn.Linear(1, 1))],
            copies=(),
        ),
        "script": Refused(lambda: torch.jit.script(nn.Linear(1, 1)), "made from"),
        "optimizer": Case(
            trained(0.1),
            [trained(0.2)],
            use=lambda value: (value.state_dict(), repr(value)),
            copies=("deepcopy", "parcel"),
        ),
        "scheduler": Case(
            lambda: scheduled(2),
            [lambda: scheduled(3)],
            use=lambda value: value.get_last_lr(),
            copies=("deepcopy",),
        ),
        "loss": Case(nn.MSELoss, [lambda: nn.MSELoss(reduction="sum"), nn.L1Loss]),
        "normal": Case(
            lambda: distributions.Normal(torch.tensor(0.0), 1.0),
            [lambda: distributions.Normal(torch.tensor(0.5), 1.0)],
            use=lambda value: (value.sample(), value.log_prob(torch.tensor(0.1))),
        ),
        "categorical": Case(
            lambda: distributions.Categorical(probs=torch.tensor([0.5, 0.5])),
            [lambda: distributions.Categorical(probs=torch.tensor([0.25, 0.75]))],
            use=lambda value: (value.logits, value.entropy()),
        ),
        "bernoulli": Case(
            lambda: distributions.Bernoulli(logits=torch.tensor(0.3)),
            [lambda: distributions.Bernoulli(logits=torch.tensor(0.4))],
            use=lambda value: (value.probs, value.mean),
        ),
        "multivariate": Case(
            lambda: distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            [lambda: distributions.MultivariateNormal(torch.zeros(2), 2 * torch.eye(2))],
            use=lambda value: (value.precision_matrix, value.scale_tril, value.rsample()),
        ),
        "transform": Case(
            lambda: distributions.AffineTransform(1.0, 2.0),
            [lambda: distributions.AffineTransform(1.0, 3.0), distributions.ExpTransform],
            use=lambda value: (value(torch.ones(1)), value.inv),
        ),
        "dataset": Case(
            lambda: torch.utils.data.TensorDataset(tensor()),
            [lambda: torch.utils.data.TensorDataset(tensor() + 1)],
        ),
        "loader": Case(
            lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensor())),
            [lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensor()), 2)],
            use=list,
        ),
        "function": Case(lambda: torch.sin, [lambda: torch.cos, lambda: torch.relu]),
    }


def jax() -> Cases:
    import jax
    import jax.numpy as jnp

    def static(function: Any, **options: Any) -> Any:
        return lambda: jax.jit(function, **options)

    def power(x: Any, n: int) -> Any:
        return x**n

    def traced() -> Any:
        found = []
        jax.jit(lambda x: found.append(x) or x)(1.0)
        return found[0]

    return {
        "array": Case(
            lambda: jnp.arange(6.0),
            [
                lambda: jnp.arange(6.0) + 1,
                lambda: jnp.arange(6.0).reshape(2, 3),
                lambda: jnp.arange(6),
                lambda: jnp.arange(6.0, dtype="bfloat16"),
                lambda: jnp.arange(6.0, dtype="float16"),
                lambda: __import__("numpy").arange(6.0, dtype="f4"),
            ],
            use=lambda value: (value + 1, value.tolist(), repr(value), value.block_until_ready()),
            equal=[lambda: jnp.arange(12.0)[::2] / 2],
        ),
        "weak": Case(lambda: jnp.asarray(1.0), [lambda: jnp.asarray(1.0, dtype="float32")]),
        "key": Case(
            lambda: jax.random.key(1),
            [
                lambda: jax.random.key(2),
                lambda: jax.random.PRNGKey(1),
                lambda: jax.random.key(1, impl="rbg"),
            ],
            use=lambda value: (jax.random.split(value), jax.random.normal(value)),
        ),
        "compiled": Case(
            static(power, static_argnums=(1,)),
            [static(power), static(lambda x: -x), static(power, static_argnums=(0, 1))],
            use=lambda value: value(2.0, 3),
            copies=("copy",),
        ),
        "function": Case(
            lambda: jnp.sin,
            [lambda: jnp.cos, lambda: jnp.add, lambda: jax.nn.relu],
            use=lambda value: value(1.0),
            copies=("parcel",),
        ),
        "tree": Case(
            lambda: jax.tree_util.tree_structure([1, {"a": 2}]),
            [lambda: jax.tree_util.tree_structure([1, {"b": 2}])],
        ),
        "shape": Case(
            lambda: jax.ShapeDtypeStruct((2,), "float32"),
            [lambda: jax.ShapeDtypeStruct((3,), "float32")],
        ),
        "tracer": Refused(traced, "outside"),
    }
