// residual-store: what the blocks have added to each token, d = x - embedded, in half floats at a scale of the token's own.
//   x, embedded [tokens, DIM] f32    packed [tokens, DIM] f16, two in a word    sizes [tokens] (scale, |d|)
// d = scale * packed. The largest |d| of a token becomes 32768, half of what f16 holds, so that no magnitude is too large for it.
// Packing is WGSL's own and needs no f16 on the device.
// Prelude: const DIM, a multiple of 4.
override WORKGROUP: u32;
struct Params { tokens: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> embedded: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> sizes: array<vec2f>;
@group(0) @binding(4) var<uniform> params: Params;

const QUADS = DIM / 4;
const LARGEST = 32768.0;
/** Below this 1 / scale is no f32 any more, and the token counts as zero. */
const SMALLEST = 1e-30;

var<workgroup> peaks: array<f32, WORKGROUP>;
var<workgroup> squares: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let token = group.y * grid.x + group.x; // one workgroup per token
  if (token >= params.tokens) { return; }
  let row = token * QUADS;
  var high = vec4f();
  var sum = vec4f();
  for (var i = lane; i < QUADS; i += WORKGROUP) {
    let d = x[row + i] - embedded[row + i];
    high = max(high, abs(d));
    sum = fma(d, d, sum);
  }
  peaks[lane] = max(max(high.x, high.y), max(high.z, high.w));
  squares[lane] = dot(sum, vec4f(1));
  workgroupBarrier();
  // Every lane goes through all parts: one barrier instead of a tree of them.
  var peak = 0.0;
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) {
    peak = max(peak, peaks[i]);
    total += squares[i];
  }
  var inverse = 0.0;
  if (peak > SMALLEST) { inverse = LARGEST / peak; }
  for (var i = lane; i < QUADS; i += WORKGROUP) {
    let d = (x[row + i] - embedded[row + i]) * inverse;
    packed[row + i] = vec2u(pack2x16float(d.xy), pack2x16float(d.zw));
  }
  if (lane == 0) { sizes[token] = vec2f(peak / LARGEST, sqrt(total)); }
}
