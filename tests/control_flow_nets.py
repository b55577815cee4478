"""Nets with If, Loop and Scan, which tests of several rooms share."""

from __future__ import annotations

from onnx import ModelProto

from nets import parse

NETS: dict[str, str] = {}
NETS["branches"] = """(float[N,3,4,4] x, bool c) => (float[N,4,4,4] y)
<float[8,3,1,1] w1, float[4,6,1,1] w3, float[6,8,1,1] wb> {
  a = Conv(x, w1)
  r = Relu(a)
  e = If (c) <
    then_branch = yes () => (float[N,6,4,4] p) <float[10,8,3,3] w, float[10] b, float[6,10,1,1] v> {
      h = Conv<pads = [1,1,1,1]>(r, w, b)
      g = Relu(h)
      p = Conv(g, v)
    },
    else_branch = no () => (float[N,6,4,4] q) <float[7,8,1,1] w, float[6,7,1,1] v> {
      h = Conv(r, w)
      s = Sigmoid(h)
      t = Conv(s, v)
      u = Conv(r, wb)
      q = Add(t, u)
    }>
  y = Conv(e, w3)
}"""
NETS["constants"] = """(float[N,5] x, bool c) => (float[N,2] y)
<float[5,8] w1, float[8,2] w2> {
  a = MatMul(x, w1)
  b = If (c) <
    then_branch = yes () => (float[8] p) <float[8] k> { p = Identity(k) },
    else_branch = no () => (float[8] q) { q = Constant<value = float[8] {1,2,3,4,5,6,7,8}>() }>
  d = Add(a, b)
  y = MatMul(d, w2)
}"""
NETS["rnn"] = """(float[N,T,5] x) => (float[N,T,3] y, float[N,4] z)
<float[5,8] wx, float[8,8] wh, float[8] b, int64[1] i0 = {0}, int64 i1 = {1}, int64[1] eight = {8}, float[8,3] wo, float[8,4] wz,
 bool yes = {1}> {
  s = Shape(x)
  n = Gather(s, i0)
  t = Gather(s, i1)
  hs = Concat<axis = 0>(n, eight)
  h0 = ConstantOfShape(hs)
  h, ys = Loop (t, yes, h0) <body = step (int64 i, bool going, float[N,8] hin) => (bool on, float[N,8] hout, float[N,8] yt) {
    xt = Gather<axis = 1>(x, i)
    a = MatMul(xt, wx)
    r = MatMul(hin, wh)
    ar = Add(a, r)
    arb = Add(ar, b)
    hout = Tanh(arb)
    yt = Identity(hout)
    on = Identity(going)
  }>
  yn = Transpose<perm = [1,0,2]>(ys)
  y = MatMul(yn, wo)
  z = MatMul(h, wz)
}"""
NETS["large"] = NETS["rnn"].replace("8]", "96]").replace("[8,", "[96,").replace("{8}", "{96}")  # weights are handed over
NETS["refine"] = """(float[N,3,6,6] x, int64 n) => (float[N,2,6,6] y)
<float[8,3,1,1] w1, float[2,8,1,1] w2> {
  a = Conv(x, w1)
  h = Loop (n, "", a) <body = step (int64 i, bool going, float[N,8,6,6] hin) => (bool on, float[N,8,6,6] hout)
   <float[6,8,3,3] u, float[6] bu, float[8,6,1,1] v, float[8] bv, float limit = {4}> {
    c = Conv<pads = [1,1,1,1]>(hin, u, bu)
    r = Relu(c)
    d = Conv(r, v, bv)
    hout = Add(hin, d)
    f = Cast<to = 1>(i)
    on = Less(f, limit)
  }>
  y = Conv(h, w2)
}"""
NETS["first_state"] = """(float[N,T,5] x) => (float[N,T,3] y, float[N,4] z)
<float[5,8] wx, float[8,8] wh, int64 i1 = {1}, float[1,8] h0, float[8,3] wo, float[8,4] wz> {
  s = Shape(x)
  t = Gather(s, i1)
  h, ys = Loop (t, "", h0) <body = step (int64 i, bool going, float[M,8] hin) => (bool on, float[N,8] hout, float[N,8] yt) {
    xt = Gather<axis = 1>(x, i)
    a = MatMul(xt, wx)
    r = MatMul(hin, wh)
    ar = Add(a, r)
    hout = Tanh(ar)
    yt = Identity(hout)
    on = Identity(going)
  }>
  yn = Transpose<perm = [1,0,2]>(ys)
  y = MatMul(yn, wo)
  z = MatMul(h, wz)
}"""
NETS["lstm"] = """(float[N,T,5] x, float[N,T,5] other) => (float[N,3,T] y, float[N,2] z)
<float[5,32] wx, float[5,32] wk, float[8,32] wh, float[32] b, float[1,8] h00, float[1,8] c00, float[8,3] wo, float[8,2] wz,
 int64[1] i0 = {0}, int64[1] eight = {8}> {
  k = Transpose<perm = [1,0,2]>(other)
  s = Shape(x)
  n = Gather(s, i0)
  hs = Concat<axis = 0>(n, eight)
  h0 = Expand(h00, hs)
  c0 = Expand(c00, hs)
  hT, cT, ys = Scan <num_scan_inputs = 2, scan_input_axes = [1,0], scan_input_directions = [1,0], scan_output_axes = [-1],
   scan_output_directions = [1],
   body = step (float[N,8] h, float[N,8] c, float[N,5] xt, float[N,5] kt) => (float[N,8] hn, float[N,8] cn, float[N,8] yt)
   <int64[4] parts = {8,8,8,8}> {
    ax = MatMul(xt, wx)
    ak = MatMul(kt, wk)
    ah = MatMul(h, wh)
    axk = Add(ax, ak)
    a = Add(axk, ah)
    g = Add(a, b)
    i1, f1, o1, g1 = Split<axis = 1>(g, parts)
    i = Sigmoid(i1)
    f = Sigmoid(f1)
    o = Sigmoid(o1)
    u = Tanh(g1)
    fc = Mul(f, c)
    iu = Mul(i, u)
    cn = Add(fc, iu)
    ct = Tanh(cn)
    hn = Mul(o, ct)
    yt = Identity(hn)
  }> (h0, c0, x, k)
  yn = Transpose<perm = [0,2,1]>(ys)
  yo = MatMul(yn, wo)
  y = Transpose<perm = [0,2,1]>(yo)
  z = MatMul(hT, wz)
}"""
NETS["batched"] = """(float[N,T,5] x, float[N,8] start) => (float[N,T,3] y, float[N,2] z)
<float[5,8] wx, float[8,8] wh, float[8,3] wo, float[8,2] wz, float[8,8] w0> {
  h0 = MatMul(start, w0)
  hT, ys = Scan <num_scan_inputs = 1, body = step (float[8] h, float[5] xt) => (float[8] hn, float[8] yt) {
    a = MatMul(xt, wx)
    r = MatMul(h, wh)
    ar = Add(a, r)
    hn = Tanh(ar)
    yt = Identity(hn)
  }> ("", h0, x)
  y = MatMul(ys, wo)
  z = MatMul(hT, wz)
}"""
NETS["nested"] = """(float[N,5] x, int64 n) => (float[N,2] y)
<float[5,8] w1, float[8,2] w2, int64 two = {2}, int64 zero = {0}> {
  a = MatMul(x, w1)
  h = Loop (n, "", a) <body = step (int64 i, bool going, float[N,8] hin) => (bool on, float[N,8] hout) {
    on = Identity(going)
    m = Mod(i, two)
    even = Equal(m, zero)
    d = If (even) <
      then_branch = yes () => (float[N,8] p) <float[8,6] u, float[6,8] v> { b = MatMul(hin, u)  r = Relu(b)  p = MatMul(r, v) },
      else_branch = no () => (float[N,8] q) <float[8,4] u, float[4,8] v> {
        q = Loop (two, "", hin) <body = inner (int64 j, bool g, float[N,8] hin) => (bool o, float[N,8] h2) {
          o = Identity(g)  b = MatMul(hin, u)  r = Tanh(b)  h2 = MatMul(r, v) }>
      }>
    hout = Add(hin, d)
  }>
  y = MatMul(h, w2)
}"""
NETS["rows"] = """(float[N,3] x, bool c) => (float[M,2] y)
<float[3,8] w, float[8,2] v, float[8,6] a1, float[6,8] a2> {
  h = MatMul(x, w)
  e = If (c) <
    then_branch = yes () => (float[A,8] p) { p = Concat<axis = 0>(h, h) },
    else_branch = no () => (float[B,8] q) { i = MatMul(h, a1)  r = Relu(i)  q = MatMul(r, a2) }>
  y = MatMul(e, v)
}"""
NETS["cache"] = """(float[2,T,5] x) => (float[2,3] y, float[2,S,3] z)
<float[2,0,6] empty, float[5,6] wv, float[5,6] wq, float[5,4] wn, float[4,6] wm, int64[1] first = {0}, int64[1] one = {1},
 float[6,3] wo, int64 i1 = {1}> {
  s = Shape(x)
  t = Gather(s, i1)
  all, os = Loop (t, "", empty) <
   body = step (int64 i, bool going, float[2,P,6] past) => (bool on, float[2,Q,6] present, float[2,6] o) {
    on = Identity(going)
    xt = Gather<axis = 1>(x, i)
    v = MatMul(xt, wv)
    v1 = Unsqueeze(v, one)
    present = Concat<axis = 1>(past, v1)
    q = MatMul(xt, wq)
    q1 = Unsqueeze(q, one)
    k = Transpose<perm = [0,2,1]>(present)
    qk = MatMul(q1, k)
    p = Softmax<axis = -1>(qk)
    oo = MatMul(p, present)
    o1 = Squeeze(oo, one)
    n = MatMul(xt, wn)
    r = Relu(n)
    m = MatMul(r, wm)
    o = Add(o1, m)
  }>
  sum = ReduceSum<keepdims = 0>(os, first)
  y = MatMul(sum, wo)
  z = MatMul(all, wo)
}"""
NETS["layers"] = """(float[N,6] x) => (float[N,3] y)
<float[6,8] w0, float[4,8,12] up, float[4,12,8] down, float[4,12] b, float[8,3] wo> {
  h0 = MatMul(x, w0)
  hT = Scan <num_scan_inputs = 3, body = layer (float[N,8] h, float[8,12] u, float[12,8] d, float[12] c) => (float[N,8] hn) {
    a = MatMul(h, u)
    ac = Add(a, c)
    s = Sigmoid(ac)
    e = MatMul(s, d)
    hn = Add(h, e)
  }> (h0, up, down, b)
  y = MatMul(hT, wo)
}"""
NETS["picked_layers"] = """(float[N,6] x) => (float[N,3] y)
<float[6,8] w0, float[4,8,12] up, float[4,12,8] down, float[8,3] wo, int64 four = {4}> {
  h0 = MatMul(x, w0)
  hT = Loop (four, "", h0) <body = layer (int64 i, bool going, float[N,8] h) => (bool on, float[N,8] hn) {
    on = Identity(going)
    u = Gather<axis = 0>(up, i)
    d = Gather<axis = 0>(down, i)
    a = MatMul(h, u)
    r = Relu(a)
    e = MatMul(r, d)
    hn = Add(h, e)
  }>
  y = MatMul(hT, wo)
}"""
NETS["swapped"] = """(float[N,6] x, int64 n) => (float[N,3] y, float[N,2] z)
<float[6,8] w0, float[6,8] w1, float[8,3] wo, float[8,2] wz> {
  a0 = MatMul(x, w0)
  b0 = MatMul(x, w1)
  aT, bT = Loop (n, "", a0, b0) <
   body = step (int64 i, bool going, float[N,8] a, float[N,8] b) => (bool on, float[N,8] an, float[N,8] bn) {
    on = Identity(going)  an = Tanh(b)  bn = Relu(a) }>
  y = MatMul(aT, wo)
  z = MatMul(bT, wz)
}"""


def net(name: str) -> ModelProto:
    return parse(NETS[name], 8 if name == "batched" else 18)
