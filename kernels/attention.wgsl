// attention: out = softmax(q k^T / sqrt(128) + bias) v for each head, by online softmax; f32 inside whatever T is.
//   q [qHeads, queries, 128] of T    k, v [heads, keys, 128] of T    out [queries, qHeads * 128] f32
//   bias: lastKeyBias for the last key, 0 for the others
// One workgroup takes ROWS queries of one head, 64 keys a step. One invocation holds 8 queries x 4 keys of the logits
// and 8 queries x 8 channels of the output, as 4 x 4 blocks in registers. Queries (one word for 16 neighbours) and
// values (neighbouring words) come straight from their buffers. SHARE_KEYS: keys, whose rows lie far apart, are fetched
// once and turned in workgroup memory.
// Prelude: alias T, const ROWS, SHARE_KEYS.
override WORKGROUP: u32;
struct Params {
  queries: u32,
  keys: u32,
  qHeads: u32,
  headOffset: u32, // head of q and out that belongs to head 0 of k and v
  queryBegin: u32,
  queryEnd: u32,
  lastKeyBias: f32,
}
@group(0) @binding(0) var<storage, read> q: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<T>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(4) var<uniform> params: Params;

const QUADS = 32u; // vec4 in a head of 128 channels
const KEYS = 64u;
const COLUMNS = 16u; // invocations side by side: 4 keys, or 8 channels, each
const ROW_QUADS = ROWS / 4;
const SLICE = select(QUADS, ROWS / 4, SHARE_KEYS); // quads of channels at a time: as many as the tile holds of the keys
const LOG2E = 1.4426950408889634;
const SCALE = 0.08838834764831845 * LOG2E; // 1 / sqrt(128), for exp2
const LOWEST = -3e38; // no logit is below; exp2(LOWEST - any) is 0
const NEXT = vec4u(0, 1, 2, 3);

/** Keys [SLICE * 4 channels][KEYS] if shared, then row maxima [COLUMNS][ROWS], then weights [ROWS][KEYS] of a step. */
var<workgroup> tile: array<vec4f, ROWS * COLUMNS>;

/** A number for each of an invocation's 8 queries. */
struct Rows { a: vec4f, b: vec4f }

/** The same quad of channels of 4 queries, keys or values; a column each. */
fn queryBlock(i: vec4u) -> mat4x4f { return mat4x4f(vec4f(q[i.x]), vec4f(q[i.y]), vec4f(q[i.z]), vec4f(q[i.w])); }
fn keyBlock(i: vec4u) -> mat4x4f { return mat4x4f(vec4f(k[i.x]), vec4f(k[i.y]), vec4f(k[i.z]), vec4f(k[i.w])); }
fn valueBlock(i: vec4u) -> mat4x4f { return mat4x4f(vec4f(v[i.x]), vec4f(v[i.y]), vec4f(v[i.z]), vec4f(v[i.w])); }

fn load(i: u32) -> mat4x4f {
  return mat4x4f(tile[i], tile[i + COLUMNS], tile[i + 2 * COLUMNS], tile[i + 3 * COLUMNS]);
}

fn save(i: u32, block: mat4x4f) {
  tile[i] = block[0];
  tile[i + COLUMNS] = block[1];
  tile[i + 2 * COLUMNS] = block[2];
  tile[i + 3 * COLUMNS] = block[3];
}

/** Puts each invocation's numbers where all of its row can read them: column c at c * ROW_QUADS + rowQuad. */
fn share(column: u32, rowQuad: u32, mine: Rows) {
  workgroupBarrier();
  tile[column * ROW_QUADS + rowQuad] = mine.a;
  tile[column * ROW_QUADS + rowQuad + 1] = mine.b;
  workgroupBarrier();
}

fn add(block: mat4x4f, column: vec4f) -> mat4x4f { return block + mat4x4f(column, column, column, column); }
fn highest(block: mat4x4f) -> vec4f { return max(max(block[0], block[1]), max(block[2], block[3])); }
fn power(block: mat4x4f) -> mat4x4f { return mat4x4f(exp2(block[0]), exp2(block[1]), exp2(block[2]), exp2(block[3])); }

/** Multiplies column i of a block by factor i. */
fn scaled(block: mat4x4f, factor: vec4f) -> mat4x4f {
  return mat4x4f(block[0] * factor.x, block[1] * factor.y, block[2] * factor.z, block[3] * factor.w);
}

fn store(row: u32, quad: u32, low: vec4f, high: vec4f) {
  if (row >= params.queryEnd) { return; }
  let i = row * params.qHeads * QUADS + quad;
  out[i] = low;
  out[i + COLUMNS] = high;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = lane % COLUMNS;
  let rowQuad = lane / COLUMNS * 2; // the invocation has quads rowQuad and rowQuad + 1 of the workgroup's rows
  let row = params.queryBegin + group.x * ROWS + rowQuad * 4;
  let alive = row < params.queryEnd;
  let queryHead = (params.headOffset + group.y) * params.queries;
  let queryA = (queryHead + min(row + NEXT, vec4u(params.queryEnd - 1))) * QUADS;
  let queryB = (queryHead + min(row + 4 + NEXT, vec4u(params.queryEnd - 1))) * QUADS;
  let keyHead = group.y * params.keys;
  let lastKey = vec4u(params.keys - 1);

  var top = Rows(vec4f(LOWEST), vec4f(LOWEST)); // highest logit of a row so far
  var sum = Rows(); // denominators: this invocation's keys only until the end
  // Output, channels by queries: queries a and b, quads column (low) and column + 16 (high).
  var aLow = mat4x4f();
  var aHigh = mat4x4f();
  var bLow = mat4x4f();
  var bHigh = mat4x4f();

  for (var begin = 0u; begin < params.keys; begin += KEYS) {
    let key = begin + column * 4 + NEXT;
    let keyRow = (keyHead + min(key, lastKey)) * QUADS;
    var a = mat4x4f(); // logits, keys by queries
    var b = mat4x4f();
    for (var slice = 0u; slice < QUADS; slice += SLICE) {
      if (SHARE_KEYS) {
        workgroupBarrier();
        for (var i = lane / COLUMNS; i < SLICE; i += WORKGROUP / COLUMNS) {
          save(i * 4 * COLUMNS + column, transpose(keyBlock(keyRow + slice + i)));
        }
        workgroupBarrier();
      }
      if (alive && key.x < params.keys) {
        for (var i = 0u; i < SLICE; i++) {
          var keys: mat4x4f; // keys by channels
          if (SHARE_KEYS) {
            keys = load(i * 4 * COLUMNS + column);
          } else {
            keys = transpose(keyBlock(keyRow + slice + i));
          }
          a += keys * queryBlock(queryA + slice + i);
          b += keys * queryBlock(queryB + slice + i);
        }
      }
    }
    // Keys past the end were read as the last one and count nothing.
    let bias = select(vec4f(), vec4f(params.lastKeyBias * LOG2E), key == lastKey);
    let mask = select(bias, vec4f(LOWEST), key > lastKey);
    a = transpose(add(a * SCALE, mask)); // queries by keys
    b = transpose(add(b * SCALE, mask));

    share(column, rowQuad, Rows(highest(a), highest(b)));
    let before = top;
    for (var i = 0u; i < COLUMNS; i++) {
      top.a = max(top.a, tile[i * ROW_QUADS + rowQuad]);
      top.b = max(top.b, tile[i * ROW_QUADS + rowQuad + 1]);
    }
    let shrink = Rows(exp2(before.a - top.a), exp2(before.b - top.b));
    a = power(add(a, -top.a));
    b = power(add(b, -top.b));
    sum.a = sum.a * shrink.a + (a[0] + a[1]) + (a[2] + a[3]);
    sum.b = sum.b * shrink.b + (b[0] + b[1]) + (b[2] + b[3]);
    workgroupBarrier();
    save(rowQuad * 4 * COLUMNS + column, transpose(a));
    save((rowQuad + 1) * 4 * COLUMNS + column, transpose(b));
    workgroupBarrier();

    aLow = scaled(aLow, shrink.a);
    aHigh = scaled(aHigh, shrink.a);
    bLow = scaled(bLow, shrink.b);
    bHigh = scaled(bHigh, shrink.b);
    let quads = select(0, min(KEYS / 4, (params.keys - begin + 3) / 4), alive);
    for (var i = 0u; i < quads; i++) {
      let valueRow = (keyHead + min(begin + i * 4 + NEXT, lastKey)) * QUADS + column;
      let low = valueBlock(valueRow); // channels by keys
      let high = valueBlock(valueRow + COLUMNS);
      let weightA = load(rowQuad * 4 * COLUMNS + i); // keys by queries
      aLow += low * weightA;
      aHigh += high * weightA;
      let weightB = load((rowQuad + 1) * 4 * COLUMNS + i);
      bLow += low * weightB;
      bHigh += high * weightB;
    }
  }

  share(column, rowQuad, sum);
  sum = Rows();
  for (var i = 0u; i < COLUMNS; i++) {
    sum.a += tile[i * ROW_QUADS + rowQuad];
    sum.b += tile[i * ROW_QUADS + rowQuad + 1];
  }
  let quad = (params.headOffset + group.y) * QUADS + column;
  store(row, quad, aLow[0] / sum.a.x, aHigh[0] / sum.a.x);
  store(row + 1, quad, aLow[1] / sum.a.y, aHigh[1] / sum.a.y);
  store(row + 2, quad, aLow[2] / sum.a.z, aHigh[2] / sum.a.z);
  store(row + 3, quad, aLow[3] / sum.a.w, aHigh[3] / sum.a.w);
  store(row + 4, quad, bLow[0] / sum.b.x, bHigh[0] / sum.b.x);
  store(row + 5, quad, bLow[1] / sum.b.y, bHigh[1] / sum.b.y);
  store(row + 6, quad, bLow[2] / sum.b.z, bHigh[2] / sum.b.z);
  store(row + 7, quad, bLow[3] / sum.b.w, bHigh[3] / sum.b.w);
}
