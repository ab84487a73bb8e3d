// spatial-attention: one head of C channels over the positions of a frame, y = softmax(q k^T / sqrt(C)) v.
//   qkv [height + 2, width + 2, 3, C] of T    y [height + 2, width + 2, C] of T    borders are neither read nor written
// C = 4 * LANES. A workgroup answers eight queries against LANES keys at a time, with the softmax carried along. A lane
// is a key while scores are made, and four channels while values are summed. A pair of vec4f holds a number for each
// query.
// Prelude: alias T.
override LANES: u32;

struct Params {
  first: u32, // query of this dispatch's first workgroup, divided by 8
  height: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<T>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(2) var<uniform> params: Params;

/** Below every score; the smallest f32 is not a WGSL literal on all compilers. */
const LOWEST = -3e38;

var<workgroup> queries: array<vec4f, 8 * LANES>; // [channels / 4, query]
var<workgroup> scores: array<vec4f, 2 * LANES>;  // [key, pair]
var<workgroup> places: array<u32, LANES>;        // where the keys lie in qkv

/** Index of a position of the frame among those with a border. */
fn place(position: u32) -> u32 {
  return (position / params.width + 1) * (params.width + 2) + position % params.width + 1;
}

fn storeOne(query: u32, lane: u32, value: vec4f) {
  if (query < params.height * params.width) { y[place(query) * LANES + lane] = vec4<T>(value); }
}

fn store(query: u32, lane: u32, values: mat4x4f, sums: vec4f) {
  storeOne(query, lane, values[0] / sums.x);
  storeOne(query + 1, lane, values[1] / sums.y);
  storeOne(query + 2, lane, values[2] / sums.z);
  storeOne(query + 3, lane, values[3] / sums.w);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let positions = params.height * params.width;
  let query = (params.first + group.x) * 8;
  let scale = inverseSqrt(f32(4 * LANES));
  for (var i = 0u; i < 8; i++) {
    let at = place(min(query + i, positions - 1)) * 3 * LANES;
    queries[8 * lane + i] = vec4f(qkv[at + lane]) * scale;
  }
  var largestA = vec4f(LOWEST);
  var largestB = vec4f(LOWEST);
  var sumA = vec4f();
  var sumB = vec4f();
  var valuesA = mat4x4f(); // a column for each query
  var valuesB = mat4x4f();
  for (var key = 0u; key < positions; key += LANES) {
    workgroupBarrier();
    let at = place(min(key + lane, positions - 1)) * 3 * LANES;
    var scoreA = vec4f();
    var scoreB = vec4f();
    for (var c = 0u; c < LANES; c++) {
      let k = vec4f(qkv[at + LANES + c]);
      let q = 8 * c;
      scoreA += vec4f(dot(k, queries[q]), dot(k, queries[q + 1]), dot(k, queries[q + 2]), dot(k, queries[q + 3]));
      scoreB += vec4f(dot(k, queries[q + 4]), dot(k, queries[q + 5]), dot(k, queries[q + 6]), dot(k, queries[q + 7]));
    }
    let present = key + lane < positions;
    scoreA = select(vec4f(LOWEST), scoreA, present);
    scoreB = select(vec4f(LOWEST), scoreB, present);
    scores[2 * lane] = scoreA;
    scores[2 * lane + 1] = scoreB;
    places[lane] = at;
    workgroupBarrier();
    var newA = largestA;
    var newB = largestB;
    for (var i = 0u; i < LANES; i++) {
      newA = max(newA, scores[2 * i]);
      newB = max(newB, scores[2 * i + 1]);
    }
    workgroupBarrier();
    scores[2 * lane] = exp(scoreA - newA);
    scores[2 * lane + 1] = exp(scoreB - newB);
    workgroupBarrier();
    let fadeA = exp(largestA - newA);
    let fadeB = exp(largestB - newB);
    sumA *= fadeA;
    sumB *= fadeB;
    valuesA = mat4x4f(valuesA[0] * fadeA.x, valuesA[1] * fadeA.y, valuesA[2] * fadeA.z, valuesA[3] * fadeA.w);
    valuesB = mat4x4f(valuesB[0] * fadeB.x, valuesB[1] * fadeB.y, valuesB[2] * fadeB.z, valuesB[3] * fadeB.w);
    largestA = newA;
    largestB = newB;
    for (var i = 0u; i < min(LANES, positions - key); i++) {
      let a = scores[2 * i];
      let b = scores[2 * i + 1];
      let v = vec4f(qkv[places[i] + 2 * LANES + lane]);
      sumA += a;
      sumB += b;
      valuesA += mat4x4f(v * a.x, v * a.y, v * a.z, v * a.w);
      valuesB += mat4x4f(v * b.x, v * b.y, v * b.z, v * b.w);
    }
  }
  store(query, lane, valuesA, sumA);
  store(query + 4, lane, valuesB, sumB);
}
