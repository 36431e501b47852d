"""The tree, against RFC 6962's definition written down naively, and its published vectors."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.merkle import (
    EMPTY_ROOT,
    TILE_WIDTH,
    Tree,
    edge_widths,
    inclusion_proof,
    leaf_hash,
    needed_tiles,
    node_hash,
    root_from_proof,
    tile_path,
)

LARGEST = 1030


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


LEAVES = [leaf_hash(f"entry {n}".encode()) for n in range(LARGEST)]


def tiles_of(size: int) -> dict[tuple[int, int], list[bytes]]:
    """All tiles of a tree, full and unfinished."""
    found: dict[tuple[int, int], list[bytes]] = {}
    row, level = LEAVES[:size], 0
    while row:
        for start in range(0, len(row), TILE_WIDTH):
            found[level, start // TILE_WIDTH] = row[start : start + TILE_WIDTH]
        whole = [row[i : i + TILE_WIDTH] for i in range(0, len(row) - TILE_WIDTH + 1, TILE_WIDTH)]
        row, level = [naive_root(tile) for tile in whole], level + 1
    return found


def test_published_vectors() -> None:
    """The vectors of Certificate Transparency's reference implementation: eight leaves, all sizes."""
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Tree()
    assert tree.root() == EMPTY_ROOT == sha256(b"").digest()
    for entry, root in zip(entries, roots, strict=True):
        tree.append(leaf_hash(bytes.fromhex(entry)))
        assert tree.root().hex() == root


def test_every_size_has_the_root_that_the_rfc_defines() -> None:
    """And its edge survives being stored; full tiles come out when they are full."""
    tree, tiles = Tree(), []
    for size in range(1, LARGEST + 1):
        tiles += tree.append(LEAVES[size - 1])
        if size < 40 or size % 37 == 0 or size % TILE_WIDTH in {0, 1, 255} or size == LARGEST:
            assert tree.root() == naive_root(LEAVES[:size]), size
        tree = Tree.restore(size, tree.stored_edge())
    assert [(tile.level, tile.index) for tile in tiles] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert b"".join(LEAVES[256:512]) == tiles[1].data


def test_a_tree_of_two_full_levels() -> None:
    """256 * 256 leaves fill a tile of level 1 too."""
    tree, tiles = Tree(), []
    for _ in range(TILE_WIDTH**2 + 1):
        tiles += tree.append(LEAVES[0])
    assert [(tile.level, tile.index) for tile in tiles[-2:]] == [(0, 255), (1, 0)]
    assert [len(row) for row in tree.edge] == edge_widths(TILE_WIDTH**2 + 1) == [1, 0, 1]
    expected = LEAVES[0]
    for _ in range(16):
        expected = node_hash(expected, expected)
    assert tree.root() == node_hash(expected, LEAVES[0])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 700, 1024, 1030])
def test_inclusion_proofs(size: int) -> None:
    """They are the RFC's, need only the tiles that are named, and lead to the root."""
    root, tiles = naive_root(LEAVES[:size]), tiles_of(size)
    for index in {0, 1, size // 2, size - 2, size - 1, 255, 256} & set(range(size)):
        needed = {(level, tile): tiles[level, tile][:width] for level, tile, width in needed_tiles(index, size)}
        proof = inclusion_proof(index, size, needed)
        assert proof == naive_path(index, LEAVES[:size])
        assert root_from_proof(LEAVES[index], index, size, proof) == root


@given(st.integers(1, LARGEST), st.data())
def test_no_other_proof_is_accepted(size: int, data: st.DataObject) -> None:
    """Another index, another size, a hash more, less or changed: another root or a refusal."""
    index = data.draw(st.integers(0, size - 1))
    root, proof = naive_root(LEAVES[:size]), naive_path(index, LEAVES[:size])
    assert root_from_proof(LEAVES[index], index, size, proof) == root
    with pytest.raises(ValueError):
        root_from_proof(LEAVES[index], index, size, [*proof, root])
    if proof:
        with pytest.raises(ValueError):
            root_from_proof(LEAVES[index], index, size, proof[:-1])
        changed = data.draw(st.integers(0, len(proof) - 1))
        proof[changed] = node_hash(proof[changed], root)
        assert root_from_proof(LEAVES[index], index, size, proof) != root
    with pytest.raises(ValueError):
        root_from_proof(LEAVES[index], size, size, proof)


def test_an_edge_of_another_size_is_refused() -> None:
    """A head and an edge that contradict each other are not guessed at."""
    tree = Tree()
    for leaf in LEAVES[:300]:
        tree.append(leaf)
    with pytest.raises(ValueError, match="edge"):
        Tree.restore(301, tree.stored_edge())
    with pytest.raises(ValueError, match="edge"):
        Tree.restore(300, [tree.stored_edge()[0][:-1], tree.stored_edge()[1]])


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [(0, 256, "000"), (67, 256, "067"), (1_234_067, 256, "x001/x234/067"), (273, 112, "273.p/112")],
)
def test_paths(index: int, width: int, path: str) -> None:
    """C2SP tlog-tiles: three digits an element, all but the last with an x."""
    assert tile_path("0", index, width) == f"tile/0/{path}"
