"""May it ship? The declared rules applied to what was measured."""

from awqbench.gate.judgement import exit_code, judge, policy_hash

__all__ = ["exit_code", "judge", "policy_hash"]
