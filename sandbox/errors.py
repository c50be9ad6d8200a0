"""Every error the sandbox raises on purpose.

* SandboxError
  - InvalidSpec         the request is wrong in any state of the system
  - Unauthenticated     no registered key signed this request, or it is stale or replayed
  - PolicyRefused       well formed, but not for this caller under this scenario
  - BudgetSpent         a quota, a consent or a privacy budget is used up
  - NotFound            no such object, or not yours
  - AlreadyExists       the same request id came with another body
  - WrongState          right call, wrong moment
  - Unavailable         a feature this node lacks: an engine, a dataset, a peer that is down
  - OutputWithheld      the gate found the result disclosive
  - PartyFailed         a party broke off, went silent, or disagreed: names it
  - ProtocolFailed      an engine's peer broke the protocol
  - Interrupted         a party is away for a while; the job waits for it
  - Cancelled           somebody entitled to do so stopped the job
  - DeadlinePassed      a stage did not end in its time
  - IntegrityFailed     sealed data, a signature, or the log does not verify
  - JobFailed           ours; the cause is in the operator's log

Two audiences. ``str(error)`` is for the log of the node's owner: it may name files, columns and row
numbers, never a value from a row. ``error.tell`` is for the caller: by default the class's fixed words.
Constructors take one positional argument so that every error survives a process boundary.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """Base of the tree; never raised itself."""

    public: ClassVar[str] = "the request could not be served"
    public_zh: ClassVar[str] = "请求无法处理"
    next_step: ClassVar[str] = "ask the node's operator, quoting the job id"
    next_step_zh: ClassVar[str] = "请联系节点运营方并提供作业编号"

    def __init__(self, detail: str = "", *, tell: str = "", party: str = "", stage: str = "", hint: str = "") -> None:
        """Args:
        detail: for the node owner's log only.
        tell: a sentence that is safe for the caller; empty means the class's own words.
        party: who it happened at or because of (a node id).
        stage: the stage of the job's life it happened in.
        hint: the next step, where the class's own is too general.
        """
        super().__init__(detail or tell or self.public)
        self._tell, self.party, self.stage, self._hint = tell, party, stage, hint

    @property
    def tell(self) -> str:
        """What the caller may read."""
        return self._tell or self.public

    @property
    def hint(self) -> str:
        """What the caller can do next."""
        return self._hint or self.next_step

    @property
    def hint_zh(self) -> str:
        """The same in Chinese; where the hint is a particular one, with that beside it."""
        own = self._hint if self._hint != self.next_step else ""
        return f"{self.next_step_zh}（{own}）" if own else self.next_step_zh


class InvalidSpec(SandboxError):
    """The request is wrong whatever the state of the system."""

    public, public_zh = "the request is malformed", "请求格式有误"
    next_step = "correct the request and submit it again"
    next_step_zh = "更正请求后重新提交"


class Unauthenticated(SandboxError):
    """No registered key signed this request, or it is stale or replayed."""

    public, public_zh = "the request is not signed by a known key", "请求未由已登记的密钥签名"
    next_step = "check the key, its registration and this machine's clock (sandbox doctor)"
    next_step_zh = "检查密钥、登记情况及本机时钟（sandbox doctor）"


class PolicyRefused(SandboxError):
    """Well formed, but not allowed for this caller."""

    public, public_zh = "the scenario does not allow this", "场景授权不允许此操作"
    next_step = "compare the request with the approved scenario (sandbox scenario list)"
    next_step_zh = "对照已批准的场景检查请求（sandbox scenario list）"


class BudgetSpent(SandboxError):
    """A quota, a consent or a privacy budget is used up."""

    public, public_zh = "the quota or consent is used up", "配额或授权已用完"
    next_step = "ask the data owners to amend the scenario, or the person for a new consent"
    next_step_zh = "请数据方调整场景，或取得本人新的授权"


class NotFound(SandboxError):
    """No such object, or not yours."""

    public, public_zh = "not found, or not yours", "不存在或无权查看"
    next_step = "check the identifier"
    next_step_zh = "检查标识是否正确"


class AlreadyExists(SandboxError):
    """The same request id came with another body."""

    public, public_zh = "this identifier is already used for something else", "该标识已被占用"
    next_step = "choose a new request id"
    next_step_zh = "更换请求编号"


class WrongState(SandboxError):
    """Right call, wrong moment."""

    public, public_zh = "not possible in the present state", "当前状态下不可执行"
    next_step = "look at the present state (sandbox job show)"
    next_step_zh = "查看当前状态（sandbox job show）"


class Unavailable(SandboxError):
    """This node lacks what the request needs."""

    public, public_zh = "this node cannot do that at present", "本节点暂不具备所需条件"
    next_step = "run `sandbox doctor` on the node"
    next_step_zh = "在节点上运行 sandbox doctor"


class OutputWithheld(SandboxError):
    """The gate judged the result disclosive."""

    public, public_zh = "the result is too specific to be released", "结果过于具体，不予出域"
    next_step = "the data owners hold the reasons; change the question, not the wording"
    next_step_zh = "原因由数据方保存；请调整问题本身"


class SentBack(SandboxError):
    """A reviewer asks for changes before this may leave."""

    public, public_zh = "a reviewer sent the job back", "审核人已退回该作业"
    next_step = "change the request as the reviewer says, and submit again with a new request id"
    next_step_zh = "按审核意见修改后，以新的请求编号重新提交"


class Expired(SandboxError):
    """Nobody decided on a held job in time."""

    public, public_zh = "the review was not finished in time", "审核逾期未完成"
    next_step = "ask the data owners' reviewers, and submit again with a new request id"
    next_step_zh = "联系数据方审核人，以新的请求编号重新提交"


class PartyFailed(SandboxError):
    """A party broke off, went silent, refused, or disagreed on the terms."""

    public, public_zh = "another party ended the job", "其他参与方中止了作业"
    next_step = "ask the named party; submit again with a new request id"
    next_step_zh = "联系所指参与方；以新的请求编号重新提交"


class ProtocolFailed(SandboxError):
    """An engine's peer broke the protocol."""

    public, public_zh = "the computation was aborted", "计算已中止"
    next_step = "submit again with a new request id; if it recurs, call the named party"
    next_step_zh = "以新的请求编号重新提交；若再次出现请联系所指参与方"


class Interrupted(SandboxError):
    """A party is away for a while; what it and the others have done so far is kept."""

    public, public_zh = "a party is away; the job waits for it", "有参与方暂时离线，作业等待其恢复"
    next_step = "wait, or ask the named party to start its node"
    next_step_zh = "请等待，或联系所指参与方启动节点"


class Cancelled(SandboxError):
    """Somebody entitled to do so stopped the job."""

    public, public_zh = "the job was cancelled", "作业已取消"
    next_step = "submit again with a new request id"
    next_step_zh = "以新的请求编号重新提交"


class DeadlinePassed(SandboxError):
    """A stage did not end in its time."""

    public, public_zh = "a stage did not end in time", "作业阶段超时"
    next_step = "see the plan for the expected time; raise the deadline or ask the named party"
    next_step_zh = "查看计划中的预计时间；延长期限或联系所指参与方"


class IntegrityFailed(SandboxError):
    """Sealed data, a signature or the log does not verify."""

    public, public_zh = "an integrity check failed", "完整性校验失败"
    next_step = "stop, keep everything as it is, and call the auditor"
    next_step_zh = "停止操作，保留现状，并联系审计方"


class JobFailed(SandboxError):
    """Ours; the cause is in the operator's log."""

    public, public_zh = "the job failed inside the node", "作业在节点内部失败"
