#include "launch.h"

namespace hesspect::fused {
namespace {

raw::Causal causal_of(const CausalMask& mask) { return {mask.on, mask.query_rows, mask.offset}; }

}  // namespace

void softmax(const Softmax& args) {
  for_type_of(args.s, [&]<class T>(T) {
    const Pointers<T> of("softmax", args.s);
    const Index d = args.columns, rows = of.count(args.s, d, "s"), n = rows * d;
    raw::SoftmaxValue<T> q{};
    q.s = of.of(args.s, n, "s");
    q.p = of.of(args.p, n, "p");
    q.lse = of.or_null(args.lse, rows, "lse");
    q.columns = d, q.heads = args.heads, q.query_rows = args.query_rows;
    at::Tensor mask;
    if (args.mask.defined()) {
      const Index outer = of.count(args.s, args.heads * args.query_rows * d, "s");
      mask = args.mask.expand({outer, args.heads, args.query_rows, d});
      if (mask.stride(3) != 1 && d > 1) mask = mask.contiguous();
      q.mask = of.of(mask.select(0, 0).select(0, 0).select(0, 0), d, "mask");
      q.mask_outer = mask.stride(0), q.mask_head = mask.stride(1), q.mask_query = mask.stride(2);
    }
    q.scale = args.scale;
    q.causal = causal_of(args.causal);
    q.zero_if_masked = args.zero_if_masked;
    HESSPECT_RUN(softmax_value, q, {rows, d}, of.device());
  });
}

void softmax_tangent(const SoftmaxTangent& args) {
  for_type_of(args.p, [&]<class T>(T) {
    const Pointers<T> of("softmax_tangent", args.p);
    const Index d = args.columns, rows = of.count(args.p, d, "p"), n = rows * d;
    const Index tangents = of.count(args.s_dot, n, "s_dot");
    const raw::SoftmaxTangent<T> q{of.of(args.p, n, "p"),
                                   of.of(args.s_dot, tangents * n, "s_dot"),
                                   of.of(args.p_dot, tangents * n, "p_dot"),
                                   rows,
                                   d,
                                   tangents,
                                   args.scale,
                                   causal_of(args.causal)};
    HESSPECT_RUN(softmax_tangent, q, {rows * tangents, d}, of.device());
  });
}

void softmax_adjoint(const SoftmaxAdjoint& args) {
  for_type_of(args.p, [&]<class T>(T) {
    const Pointers<T> of("softmax_adjoint", args.p);
    const Index d = args.columns, rows = of.count(args.p, d, "p"), n = rows * d;
    const raw::SoftmaxAdjoint<T> q{of.of(args.p, n, "p"),
                                   of.of(args.p_bar, n, "p_bar"),
                                   of.or_null(args.s_bar, n, "s_bar"),
                                   of.of(args.r, rows, "r"),
                                   d,
                                   args.scale,
                                   causal_of(args.causal)};
    HESSPECT_RUN(softmax_adjoint, q, {rows, d}, of.device());
  });
}

void softmax_adjoint_tangent(const SoftmaxAdjointTangent& args) {
  for_type_of(args.p, [&]<class T>(T) {
    const Pointers<T> of("softmax_adjoint_tangent", args.p);
    const Index d = args.columns, rows = of.count(args.p, d, "p"), n = rows * d;
    const Index tangents = of.count(args.s_bar_dot, n, "s_bar_dot");
    const raw::SoftmaxAdjointTangent<T> q{of.of(args.p, n, "p"),
                                          of.or_null(args.p_dot, tangents * n, "p_dot"),
                                          of.or_null(args.p_bar, n, "p_bar"),
                                          args.p_bar.defined() ? of.of(args.r, rows, "r") : nullptr,
                                          of.or_null(args.p_bar_dot, tangents * n, "p_bar_dot"),
                                          of.of(args.s_bar_dot, tangents * n, "s_bar_dot"),
                                          rows,
                                          d,
                                          tangents,
                                          args.scale,
                                          causal_of(args.causal)};
    HESSPECT_RUN(softmax_adjoint_tangent, q, {rows * tangents, d}, of.device());
  });
}

void log_softmax(const LogSoftmax& args) {
  for_type_of(args.x, [&]<class T>(T) {
    const Pointers<T> of("log_softmax", args.x);
    const Index d = args.columns, rows = of.count(args.x, d, "x"), n = rows * d;
    const raw::LogSoftmaxValue<T> q{of.of(args.x, n, "x"), of.of(args.y, n, "y"), d};
    HESSPECT_RUN(log_softmax_value, q, {rows, d}, of.device());
  });
}

void log_softmax_tangent(const LogSoftmaxTangent& args) {
  for_type_of(args.y, [&]<class T>(T) {
    const Pointers<T> of("log_softmax_tangent", args.y);
    const Index d = args.columns, rows = of.count(args.y, d, "y"), n = rows * d;
    const Index tangents = of.count(args.x_dot, n, "x_dot");
    const raw::LogSoftmaxTangent<T> q{of.of(args.y, n, "y"),
                                      of.of(args.x_dot, tangents * n, "x_dot"),
                                      of.of(args.y_dot, tangents * n, "y_dot"),
                                      rows,
                                      d,
                                      tangents};
    HESSPECT_RUN(log_softmax_tangent, q, {rows * tangents, d}, of.device());
  });
}

void log_softmax_adjoint(const LogSoftmaxAdjoint& args) {
  for_type_of(args.y, [&]<class T>(T) {
    const Pointers<T> of("log_softmax_adjoint", args.y);
    const Index d = args.columns, rows = of.count(args.y, d, "y"), n = rows * d;
    const raw::LogSoftmaxAdjoint<T> q{of.of(args.y, n, "y"), of.of(args.y_bar, n, "y_bar"),
                                      of.or_null(args.x_bar, n, "x_bar"), of.of(args.r, rows, "r"), d};
    HESSPECT_RUN(log_softmax_adjoint, q, {rows, d}, of.device());
  });
}

void log_softmax_adjoint_tangent(const LogSoftmaxAdjointTangent& args) {
  for_type_of(args.y, [&]<class T>(T) {
    const Pointers<T> of("log_softmax_adjoint_tangent", args.y);
    const Index d = args.columns, rows = of.count(args.y, d, "y"), n = rows * d;
    const Index tangents = of.count(args.x_bar_dot, n, "x_bar_dot");
    const raw::LogSoftmaxAdjointTangent<T> q{of.of(args.y, n, "y"),
                                             of.or_null(args.y_dot, tangents * n, "y_dot"),
                                             of.or_null(args.r, rows, "r"),
                                             of.or_null(args.y_bar_dot, tangents * n, "y_bar_dot"),
                                             of.of(args.x_bar_dot, tangents * n, "x_bar_dot"),
                                             rows,
                                             d,
                                             tangents};
    HESSPECT_RUN(log_softmax_adjoint_tangent, q, {rows * tangents, d}, of.device());
  });
}

void cross_entropy(const CrossEntropy& args) {
  for_type_of(args.z, [&]<class T>(T) {
    const Pointers<T> of("cross_entropy", args.z);
    const Index d = args.columns, rows = of.count(args.z, d, "z"), n = rows * d;
    const raw::CrossEntropyValue<T> q{of.of(args.z, n, "z"),
                                      of.or_null(args.p, n, "p"),
                                      of.index_or_null(args.target, rows, "target"),
                                      of.or_null(args.target_p, n, "target_p"),
                                      of.or_null(args.weights, d, "weights"),
                                      of.sums(args.lse, rows, "lse"),
                                      of.sums(args.target_sum, rows, "target_sum"),
                                      of.sums_or_null(args.all_sum, rows, "all_sum"),
                                      of.sums_or_null(args.target_weight, rows, "target_weight"),
                                      d};
    HESSPECT_RUN(cross_entropy_value, q, {rows, d}, of.device());
  });
}

void cross_entropy_adjoint(const CrossEntropyAdjoint& args) {
  for_type_of(args.p, [&]<class T>(T) {
    const Pointers<T> of("cross_entropy_adjoint", args.p);
    const Index d = args.columns, rows = of.count(args.p, d, "p"), n = rows * d;
    const raw::CrossEntropyAdjoint<T> q{of.of(args.p, n, "p"),
                                        of.index_or_null(args.target, rows, "target"),
                                        of.or_null(args.target_p, n, "target_p"),
                                        of.or_null(args.weights, d, "weights"),
                                        of.of(args.a, rows, "a"),
                                        of.of(args.b, rows, "b"),
                                        of.or_null(args.s, rows, "s"),
                                        of.of(args.z_bar, n, "z_bar"),
                                        d};
    HESSPECT_RUN(cross_entropy_adjoint, q, {rows, d}, of.device());
  });
}

void cross_entropy_adjoint_tangent(const CrossEntropyAdjointTangent& args) {
  for_type_of(args.p, [&]<class T>(T) {
    const Pointers<T> of("cross_entropy_adjoint_tangent", args.p);
    const Index d = args.columns, rows = of.count(args.p, d, "p"), n = rows * d;
    const Index tangents = of.count(args.z_dot, n, "z_dot");
    const raw::CrossEntropyAdjointTangent<T> q{of.of(args.p, n, "p"),
                                               of.of(args.z_dot, tangents * n, "z_dot"),
                                               of.of(args.a, rows, "a"),
                                               of.or_null(args.r, tangents * rows, "r"),
                                               of.of(args.z_bar_dot, tangents * n, "z_bar_dot"),
                                               rows,
                                               d,
                                               tangents};
    HESSPECT_RUN(cross_entropy_adjoint_tangent, q, {rows * tangents, d}, of.device());
  });
}

}  // namespace hesspect::fused
