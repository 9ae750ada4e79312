"""A memory plan: its table, its lines, and what a decoded token reads under it."""

from __future__ import annotations

from dataclasses import dataclass

from dsv4agent.engine.weights.sizes import Part

GIB = 2**30


@dataclass(frozen=True)
class PartPlan:
    """One part of the memory.

    Attributes:
        part: What it is for.
        stored: Bytes in the checkpoint; 0 if it is no weight.
        gpu: Bytes on each GPU, in the kernels' layout.
        host: Bytes in pinned host memory, for all GPUs together.
    """

    part: Part
    stored: int
    gpu: int
    host: int


@dataclass(frozen=True)
class TokenTraffic:
    """What one decoded token reads, for each GPU.

    Attributes:
        weights: Bytes of weights from the GPU's own memory.
        state: Bytes of key-value rows and index rows.
        pcie: Bytes from pinned host memory.
    """

    weights: int
    state: int
    pcie: int

    @property
    def active(self) -> int:
        """Bytes of weights, wherever they are."""
        return self.weights + self.pcie

    def floor_ms(self, memory: float, pcie: float, *, overlapped: bool = True) -> float:
        """Return the least milliseconds a token takes; sums and messages between GPUs are not in it.

        Args:
            memory: Bandwidth of a GPU's memory, bytes per second.
            pcie: Of its link to the host.
            overlapped: Whether both transfers run at the same time.
        """
        own, link = (self.weights + self.state) / memory, self.pcie / pcie
        return 1e3 * (max(own, link) if overlapped else own + link)


@dataclass(frozen=True)
class MemoryPlan:
    """What goes where. `dataclasses.asdict` makes it JSON.

    Attributes:
        gpus: How many GPUs share the work.
        context: Tokens of each sequence.
        sequences: Sequences of that length at the same time.
        drafter: Whether the draft module is loaded.
        packed_scales: Whether experts are planned with scales of 4 bits.
        scale_saving: Bytes that such scales save, or would, if they say the same; that is checked at load.
        gpu_available: Bytes of each GPU.
        host_available: Bytes that may be pinned.
        parts: The table; what takes no memory is left out.
        experts: Experts of a layer.
        resident: For each layer, drafter's last: how many of its experts are on the GPUs, all together.
        expert_bytes: Of one, as planned.
        experts_per_token: Experts that a token reads in all layers of the main model.
        dense_read: Bytes of other weights on each GPU that a token reads.
        state_read: Bytes of state that a token reads after `context` tokens.
        embedding_row: Bytes that a token reads of the embedding.
    """

    gpus: int
    context: int
    sequences: int
    drafter: bool
    packed_scales: bool
    scale_saving: int
    gpu_available: int
    host_available: int
    parts: tuple[PartPlan, ...]
    experts: int
    resident: tuple[int, ...]
    expert_bytes: int
    experts_per_token: int
    dense_read: int
    state_read: int
    embedding_row: int

    @property
    def gpu_bytes(self) -> int:
        """Bytes needed on each GPU."""
        return sum(part.gpu for part in self.parts)

    @property
    def host_bytes(self) -> int:
        """Bytes needed in pinned host memory."""
        return sum(part.host for part in self.parts)

    @property
    def resident_share(self) -> float:
        """Share of all experts that are on the GPUs."""
        return sum(self.resident) / (self.experts * len(self.resident))

    def part(self, name: Part) -> PartPlan:
        """Return one part; all zero if it takes no memory."""
        return next((part for part in self.parts if part.part is name), PartPlan(name, 0, 0, 0))

    def bytes_per_token(self, resident_share: float | None = None) -> TokenTraffic:
        """Return what one decoded token reads, without a drafter.

        Args:
            resident_share: Share of the chosen experts that are on the GPU. Default: that of all experts, as
                if each were as likely as the others; placed by use, more of the chosen ones are resident.
        """
        share = self.resident_share if resident_share is None else resident_share
        routed = self.experts_per_token * self.expert_bytes / self.gpus
        on_host = self.part(Part.EMBEDDING).host > 0
        return TokenTraffic(
            weights=self.dense_read + round(routed * share) + (0 if on_host else self.embedding_row),
            state=self.state_read,
            pcie=round(routed * (1.0 - share)) + (self.embedding_row if on_host else 0),
        )

    def describe(self) -> list[str]:
        """Return the plan as lines: the sum, the table, experts, and what a token reads."""
        where = "on the GPU" if self.gpus == 1 else f"on each of {self.gpus} GPUs"
        total = self.gpus * self.gpu_bytes + self.host_bytes
        least, most = min(self.resident), max(self.resident)
        count = f"{least}" if least == most else f"{least} to {most}"
        token = self.bytes_per_token()
        saving = (
            f"{gib(self.scale_saving)} GiB {'' if self.packed_scales else 'could be '}saved by 4-bit scales"
        )
        return [
            f"needs {gib(total)} GiB: {gib(self.gpu_bytes)} {where}, "
            f"{gib(self.host_bytes)} in pinned host memory",
            f"{'GiB':26}{'stored':>10}{'GPU':>10}{'host':>10}",
            *(
                f"{part.part:26}{_cell(part.stored)}{_cell(part.gpu)}{_cell(part.host)}"
                for part in self.parts
            ),
            f"{'available':26}{'':10}{_cell(self.gpu_available)}{_cell(self.host_available)}",
            f"{count} of {self.experts} experts of a layer on the GPU ({self.resident_share:.1%})",
            *([f"{saving}, if a checkpoint's are near enough"] if self.scale_saving else []),
            f"a token reads {token.weights / 1e9:.2f} GB of weights and {token.state / 1e9:.3f} GB of state"
            f"{'' if self.gpus == 1 else ' on each GPU'}; {token.pcie / 1e6:.0f} MB over PCIe "
            "if all experts are equally likely",
        ]


def gib(count: int) -> str:
    """Return bytes in GiB, as text."""
    return f"{count / GIB:.1f}"


def _cell(count: int) -> str:
    return f"{count / GIB:10.2f}" if count else f"{'':>10}"
