#include "launch.h"

namespace hesspect::fused {
namespace {

Index flat_units(Index n) { return (n + raw::kFlatUnit - 1) / raw::kFlatUnit; }

}  // namespace

void pointwise(const Pointwise& args) {
  for_type_of(args.x, [&]<class T>(T) {
    const Pointers<T> of("pointwise", args.x);
    const Index n = args.x.numel();
    const bool adjoint = args.f2.defined() || args.x_bar.defined();
    const raw::PointwiseValue<T> q{of.of(args.x, n, "x"),
                                   adjoint ? of.of(args.y_bar, n, "y_bar") : nullptr,
                                   of.or_null(args.y, n, "y"),
                                   of.or_null(args.f1, n, "f1"),
                                   of.or_null(args.f2, n, "f2"),
                                   of.or_null(args.x_bar, n, "x_bar"),
                                   n,
                                   args.function,
                                   {args.parameters[0], args.parameters[1], args.parameters[2]}};
    HESSPECT_RUN(pointwise_value, q, {flat_units(n), std::min(n, raw::kFlatUnit)}, of.device());
  });
}

void pointwise_tangent(const PointwiseTangent& args) {
  for_type_of(args.out, [&]<class T>(T) {
    const Pointers<T> of("pointwise_tangent", args.out);
    const bool first = args.f.defined() && args.a.defined(), second = args.g.defined() && args.b.defined();
    if (!first && !second) {
      if (!args.add) args.out.zero_();
      return;
    }
    const Index n = first ? args.f.numel() : args.g.numel(), tangents = n == 0 ? 0 : of.count(args.out, n, "out");
    const raw::PointwiseTangent<T> q{first ? of.of(args.f, n, "f") : nullptr,
                                     first ? of.of(args.a, tangents * n, "a") : nullptr,
                                     second ? of.of(args.g, n, "g") : nullptr,
                                     second ? of.of(args.b, tangents * n, "b") : nullptr,
                                     of.of(args.out, tangents * n, "out"),
                                     n,
                                     tangents,
                                     args.add};
    HESSPECT_RUN(pointwise_tangent, q, {flat_units(n) * tangents, std::min(n, raw::kFlatUnit)}, of.device());
  });
}

}  // namespace hesspect::fused
