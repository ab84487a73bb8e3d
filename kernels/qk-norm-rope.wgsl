// qk-norm-rope: one projection of a token chunk to the head-major layout of attention.
//   x [tokens, DIM] f32    weight [DIM] f32    out [heads, outTokens, 128] of T
//   rope: pairs (cos, sin): frames * 22, then height * 21, then width * 21
// NORM: x / sqrt(mean(x^2) + eps) * weight, the mean over all DIM channels whichever heads are stored.
// ROPE: turns the pairs of adjacent channels of a head, 22 with the frame, 21 with the row, 21 with the column.
// Prelude: alias T, const DIM, NORM, ROPE.
override WORKGROUP: u32;
struct Params {
  tokens: u32,
  heads: u32,
  headOffset: u32, // first head of x that is stored
  outTokens: u32,
  storeOffset: u32, // row of out that takes token 0
  ropeOffset: u32, // position in the sequence of token 0
  frames: u32,
  height: u32,
  width: u32,
  eps: f32,
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read> rope: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<T>>;
@group(0) @binding(4) var<uniform> params: Params;

const QUADS = 32u; // vec4 in a head of 128 channels
const FRAME_PAIRS = 22u;
const SPACE_PAIRS = 21u;

var<workgroup> squares: array<f32, WORKGROUP>;

/** 1 / sqrt(mean(x^2) + eps) of the token whose row starts at x[row]. */
fn inverseRms(row: u32, lane: u32) -> f32 {
  var sum = vec4f();
  for (var i = lane; i < DIM / 4; i += WORKGROUP) {
    let value = x[row + i];
    sum = fma(value, value, sum);
  }
  squares[lane] = dot(sum, vec4f(1));
  workgroupBarrier();
  // Every lane adds up all parts: one barrier instead of a tree of them.
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { total += squares[i]; }
  return inverseSqrt(total / f32(DIM) + params.eps);
}

/** (cos, sin) of a pair of channels, 0 to 63, at the token position `at` of (frame, row, column). */
fn angle(pair: u32, at: vec3u) -> vec2f {
  if (pair < FRAME_PAIRS) { return rope[at.x * FRAME_PAIRS + pair]; }
  let rows = params.frames * FRAME_PAIRS;
  if (pair < FRAME_PAIRS + SPACE_PAIRS) { return rope[rows + at.y * SPACE_PAIRS + pair - FRAME_PAIRS]; }
  let columns = rows + params.height * SPACE_PAIRS;
  return rope[columns + at.z * SPACE_PAIRS + pair - FRAME_PAIRS - SPACE_PAIRS];
}

fn turn(pair: vec2f, by: vec2f) -> vec2f {
  return vec2f(pair.x * by.x - pair.y * by.y, pair.x * by.y + pair.y * by.x);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let token = group.y * grid.x + group.x; // one workgroup per token
  if (token >= params.tokens) { return; }
  let row = token * (DIM / 4);
  var scale = 1.0;
  if (NORM) { scale = inverseRms(row, lane); }
  let position = params.ropeOffset + token;
  let at = vec3u(position / (params.height * params.width), position / params.width % params.height, position % params.width);
  for (var i = lane; i < params.heads * QUADS; i += WORKGROUP) {
    let head = i / QUADS;
    let quad = i % QUADS;
    let channel = params.headOffset * QUADS + i;
    var value = x[row + channel];
    if (NORM) { value *= scale * weight[channel]; }
    if (ROPE) { value = vec4f(turn(value.xy, angle(2 * quad, at)), turn(value.zw, angle(2 * quad + 1, at))); }
    out[(head * params.outTokens + params.storeOffset + token) * QUADS + quad] = vec4<T>(value);
  }
}
