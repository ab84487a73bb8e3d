// crop-planes: the pixels of a tile that count, as colour planes of the whole frames.
//   x [frames, xHeight + 2, xWidth + 2, 4] of T, of which three channels count    y [3, yFrames, height, width] of f32
// Copies `rows` x `columns` pixels from (xTop, xLeft) of x, its border not counted, to (top, left) of y, from frame
// `yFirst` on.
// Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  frames: u32,
  rows: u32,
  columns: u32,
  xHeight: u32,
  xWidth: u32,
  xTop: u32,
  xLeft: u32,
  height: u32,
  width: u32,
  top: u32,
  left: u32,
  yFrames: u32,
  yFirst: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let frame = index / (params.rows * params.columns);
  if (frame >= params.frames) { return; }
  let row = index / params.columns % params.rows;
  let column = index % params.columns;
  let xRow = frame * (params.xHeight + 2) + params.xTop + row + 1;
  let color = vec4f(x[xRow * (params.xWidth + 2) + params.xLeft + column + 1]);
  let plane = params.yFrames * params.height * params.width;
  let at = ((params.yFirst + frame) * params.height + params.top + row) * params.width + params.left + column;
  y[at] = color.r;
  y[at + plane] = color.g;
  y[at + 2 * plane] = color.b;
}
