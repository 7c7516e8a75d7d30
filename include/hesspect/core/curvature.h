// The matrices whose spectra are computed.
#pragma once

#include <string>

namespace hesspect {

enum class Curvature {
  kHessian,
  kGgn,              // Jᵀ H_L J, of the outputs' Jacobian and the loss's second derivative in them
  kFisher,           // the same with the scores' outer products, as the model's own distribution expects them
  kEmpiricalFisher,  // with those of the data's targets
};

/// What a gradient of the empirical Fisher is the gradient of.
enum class FisherUnit {
  kTerm,  // each term of the loss: a row's class, a token, a pixel, an element
  kRow,   // each row of the data: the sum of its terms
};

inline std::string to_string(Curvature curvature) {
  switch (curvature) {
    case Curvature::kHessian: return "hessian";
    case Curvature::kGgn: return "ggn";
    case Curvature::kFisher: return "fisher";
    case Curvature::kEmpiricalFisher: return "empirical_fisher";
  }
  return "";
}

inline std::string to_string(FisherUnit unit) { return unit == FisherUnit::kRow ? "row" : "term"; }

/// As texts call it.
inline std::string matrix_name(Curvature curvature) {
  switch (curvature) {
    case Curvature::kHessian: return "Hessian";
    case Curvature::kGgn: return "generalised Gauss-Newton matrix";
    case Curvature::kFisher: return "Fisher matrix";
    case Curvature::kEmpiricalFisher: return "empirical Fisher matrix";
  }
  return "";
}

/// Whether no eigenvalue is negative, but for rounding.
inline bool is_semidefinite(Curvature curvature) { return curvature != Curvature::kHessian; }

}  // namespace hesspect
