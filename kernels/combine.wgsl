// combine: out = scaleA * a + scaleB * b + scaleC * c + scaleD * d, the first TERMS of them.
//   a, b, c, d, out [count] f32; inputs past TERMS are never read
// Prelude: const TERMS, 1 to 4.
override WORKGROUP: u32;
struct Params { count: u32, scaleA: f32, scaleB: f32, scaleC: f32, scaleD: f32 }
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> c: array<vec4f>;
@group(0) @binding(3) var<storage, read> d: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let whole = params.count / 4;
  let rest = params.count % 4;
  if (i > whole || (i == whole && rest == 0)) { return; }
  var sum = params.scaleA * a[i];
  if (TERMS > 1) { sum += params.scaleB * b[i]; }
  if (TERMS > 2) { sum += params.scaleC * c[i]; }
  if (TERMS > 3) { sum += params.scaleD * d[i]; }
  if (i < whole) {
    out[i] = sum;
    return;
  }
  // The last one to three elements: what lies behind them is not ours.
  for (var k = 0u; k < rest; k++) { out[i][k] = sum[k]; }
}
