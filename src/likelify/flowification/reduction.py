"""Series-parallel reduction: a graph of nodes as steps one after the other, and branches beside each other.

A join (sum or concatenation) belongs to the fork that all paths to it pass last. The paths between the two must not
touch each other, or else the graph is not series-parallel. Operands of a join that do share nodes are joined among
themselves first, which the associativity of sums and concatenations allows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NoReturn

from likelify.flowification.graph import Graph, Node
from likelify.flowification.refusals import NotConvertibleError
from likelify.transforms.core import Shape


@dataclass(frozen=True, eq=False)
class Branches:
    """Branches from a fork to a join.

    Attributes:
        join: the sum or concatenation.
        in_shape: event shape at the fork.
        branches: for each operand of the join its steps; none for the fork's own value.
        channels: None if each branch reads everything; else each branch reads that many channels.
        order: the channels at the fork in the order in which `channels` counts them, those that nobody reads last.
        places: for a concatenation, the order in which the channels of the result stand in the operands' order.
    """

    join: Node
    in_shape: Shape
    branches: list[list[Node | Branches]] = field(default_factory=list)
    channels: list[int] | None = None
    order: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


# Steps are nodes with one input.
Series = list[Node | Branches]


def reduce(graph: Graph) -> Series:
    """Return the graph as a series of steps and branches.

    Raises:
        NotConvertibleError: if it is not series-parallel; the message names the nodes.
    """
    _share_concatenations(graph.nodes)
    _flatten_joins(graph.nodes)
    return _Reduction().series(graph.nodes[0], graph.nodes[-1])


def steps_of(series: Series) -> list[Node]:
    """Return the nodes of all steps, branches included."""
    found: list[Node] = []
    for part in series:
        if isinstance(part, Node):
            found.append(part)
        else:
            found += [node for branch in part.branches for node in steps_of(branch)]
    return found


def _share_concatenations(nodes: list[Node]) -> None:
    """Let `cat([a, b, c])` read `cat([a, b])` where there is one, as in a DenseNet that keeps a list of features."""
    joins = [node for node in nodes if node.kind == "concat"]
    for join in joins:
        # Earlier joins only, so that nothing reads itself; the longest first.
        for other in sorted(joins[: joins.index(join)], key=lambda node: -len(node.inputs)):
            length = len(other.inputs)
            for start in range(len(join.inputs) - length + 1):
                if all(a is b for a, b in zip(join.inputs[start:], other.inputs, strict=False)):
                    join.inputs = [*join.inputs[:start], other, *join.inputs[start + length :]]
                    break


def _flatten_joins(nodes: list[Node]) -> None:
    """Make sums of sums, and concatenations of concatenations, joins of all their operands, to be grouped anew."""
    users = Counter(before for node in nodes for before in node.inputs)
    for join in nodes:
        if join.kind not in ("sum", "concat"):
            continue
        inputs, weights = [], []
        for number, operand in enumerate(join.inputs):
            inner = operand.kind == join.kind and users[operand] == 1
            inputs += operand.inputs if inner else [operand]
            if join.kind == "sum":
                weight = join.weights[number]
                weights += [weight * w for w in operand.weights] if inner else [weight]
        join.inputs, join.weights = inputs, weights


class _Reduction:
    def series(self, start: Node, target: Node) -> Series:
        """Return what happens between a node and another one, which can be reached through the first only."""
        found: Series = []
        while target is not start:
            if target.kind in ("sum", "concat"):
                fork = self._fork(target)
                found.append(self._branches(fork, target))
                target = fork
            else:
                if target.kind != "group":
                    found.append(target)
                target = target.inputs[0]
        return found[::-1]

    def _fork(self, join: Node) -> Node:
        """Return the last node that all paths to the join pass."""
        order = self._ancestors(join)
        index = {node: i for i, node in enumerate(order)}
        dominator: dict[Node, Node] = {}
        for node in order[1:]:
            found = node.inputs[0]
            for other in node.inputs[1:]:
                while found is not other:
                    if index[found] > index[other]:
                        found = dominator[found]
                    else:
                        other = dominator[other]
            dominator[node] = found
        return dominator[join]

    def _ancestors(self, node: Node) -> list[Node]:
        """Return a node and all before it, in an order in which inputs come first."""
        found: dict[Node, None] = {}
        stack: list[tuple[Node, bool]] = [(node, False)]
        while stack:
            current, ready = stack.pop()
            if ready:
                found[current] = None
            elif current not in found:
                stack.append((current, True))
                stack += [(before, False) for before in current.inputs]
        return list(found)

    def _inside(self, fork: Node, operand: Node) -> set[Node]:
        """Return the nodes on the way from the fork to an operand, without the fork."""
        return set(self._ancestors(operand)) - set(self._ancestors(fork))

    def _branches(self, fork: Node, join: Node) -> Branches:
        groups = _touching([self._inside(fork, operand) for operand in join.inputs])
        if len(groups) == 1 < len(join.inputs):
            self._part_selects(fork, join)
            return self._branches(fork, join)
        places = self._gather(join, groups)
        parts = self._channel_parts(fork, join)
        if parts is None:
            branches = [self.series(fork, operand) for operand in join.inputs]
            return Branches(join, fork.shape, branches, places=places)
        return self._split(fork, join, parts, places)

    def _gather(self, join: Node, groups: list[list[int]]) -> list[int]:
        """Join operands that share nodes among themselves first; return where the channels of the result then stand."""
        if all(len(group) == 1 for group in groups):
            return []
        old, weights = join.inputs, join.weights
        join.inputs = [self._joined(join, group) for group in groups]
        if join.kind == "sum":
            join.weights = [weights[g[0]] if len(g) == 1 else 1.0 for g in groups]
            return []
        starts, position = {}, 0
        for index in (i for group in groups for i in group):
            starts[index] = position
            position += old[index].shape[0]
        return [starts[i] + c for i, operand in enumerate(old) for c in range(operand.shape[0])]

    def _joined(self, join: Node, group: list[int]) -> Node:
        members = [join.inputs[i] for i in group]
        if len(members) == 1:
            return members[0]
        shape = join.shape if join.kind == "sum" else (sum(m.shape[0] for m in members), *join.shape[1:])
        weights = [join.weights[i] for i in group] if join.kind == "sum" else []
        return Node(f"{join.name} (part)", join.kind, members, shape, weights=weights, traced=join.traced)

    def _channel_parts(self, fork: Node, join: Node) -> list[list[Node]] | None:
        """Return for each operand the selects that it starts with, if the operands read disjoint channels."""
        parts = []
        for operand in join.inputs:
            inside = self._inside(fork, operand)
            entries = [node for node in inside if fork in node.inputs]
            if not entries or any(node.kind != "select" for node in entries):
                return None
            parts.append(sorted(entries, key=lambda node: node.channels[0]))
        ranges = sorted(node.channels[0] for entries in parts for node in entries)
        overlap = any(a[1] > b[0] for a, b in zip(ranges, ranges[1:], strict=False))
        return None if overlap or len(parts) < 2 else parts

    def _split(self, fork: Node, join: Node, parts: list[list[Node]], places: list[int]) -> Branches:
        order = [c for entries in parts for node in entries for c in range(*node.channels[0])]
        branches, sizes = [], []
        for operand, entries in zip(join.inputs, parts, strict=True):
            sizes.append(sum(b - a for node in entries for a, b in node.channels))
            branches.append(self.series(self._group(fork, entries), operand))
        order += sorted(set(range(fork.shape[0])) - set(order))
        return Branches(join, fork.shape, branches, channels=sizes, order=order, places=places)

    def _group(self, fork: Node, entries: list[Node]) -> Node:
        """Return the node at which a branch starts that reads some channels only."""
        if len(entries) == 1:
            return entries[0]
        ranges = [node.channels[0] for node in entries]
        size, start = sum(b - a for a, b in ranges), 0
        group = Node(f"{entries[0].name} (group)", "group", [fork], (size, *fork.shape[1:]), channels=ranges)
        for node, (a, b) in zip(entries, ranges, strict=True):
            node.inputs, node.channels = [group], [(start, start + b - a)]
            start += b - a
        return group

    def _part_selects(self, fork: Node, join: Node) -> None:
        """Give each operand selects of its own, where it is only these that they share; refuse to go on elsewhere."""
        inside = [self._inside(fork, operand) for operand in join.inputs]
        shared = {n for i, nodes in enumerate(inside) for other in inside[:i] for n in nodes & other}
        selects = {node for node in shared if node.kind == "select" and node.inputs[0] is fork}
        if not selects or selects != shared:
            self._refuse(fork, join, shared)
        for number, nodes in enumerate(inside[1:], 1):
            for select in selects & nodes:
                twin = Node(f"{select.name} (again {number})", "select", [fork], select.shape, traced=select.traced)
                twin.channels = list(select.channels)
                for node in nodes:
                    node.inputs = [twin if n is select else n for n in node.inputs]
                join.inputs = [twin if n is select and i == number else n for i, n in enumerate(join.inputs)]

    def _refuse(self, fork: Node, join: Node, shared: set[Node]) -> NoReturn:
        before = self._ancestors(join)
        users = {node: sum(node in other.inputs for other in before) for node in before}
        names = [node.name for node in before if node in shared and users[node] > 1]
        listed = ", ".join(f"'{name}'" for name in names[:4])
        raise NotConvertibleError(
            f"the branches from '{fork.name}' to '{join.name}' are not series-parallel, because several of them pass "
            f"{listed} and part there again. Connections must be nested like those of residual blocks or of a U-Net: "
            "end an inner connection before the outer one, or drop one of them."
        )


def _touching(sets: list[set[Node]]) -> list[list[int]]:
    """Return the indices of the sets in groups that share elements, in the order of their first members."""
    groups: list[tuple[list[int], set[Node]]] = []
    for number, members in enumerate(sets):
        touched = [group for group in groups if group[1] & members]
        merged = ([i for group in touched for i in group[0]] + [number], members.union(*(g[1] for g in touched)))
        groups = [group for group in groups if group not in touched] + [merged]
    return sorted(sorted(numbers) for numbers, _ in groups)
