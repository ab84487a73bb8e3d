// residual-apply: x += scale * packed, the residual that residual-store has kept.
//   x [tokens, DIM] f32    packed [tokens, DIM] f16, two in a word    sizes [tokens] (scale, not read)
// Prelude: const DIM, a multiple of 4.
override WORKGROUP: u32;
struct Params { tokens: u32 }
@group(0) @binding(0) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> packed: array<vec2u>;
@group(0) @binding(2) var<storage, read> sizes: array<vec2f>;
@group(0) @binding(3) var<uniform> params: Params;

const QUADS = DIM / 4;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (i >= params.tokens * QUADS) { return; }
  let halves = packed[i];
  x[i] += sizes[i / QUADS].x * vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
}
