"""The form of an application: a scenario in TOML with nothing filled in and every member explained, in two languages.

Shapes:    a row is (line of TOML, remark in English, remark in Chinese); the remark stands above its line. What must be
           given is empty or 0, so that ``scenario check`` names it; what may be given stands behind a "#" without a
           blank.
Not here:  reading it (``client.application``), what must be given (``completeness``).
"""

from __future__ import annotations

_Row = tuple[str, str, str]

_HEAD: tuple[_Row, ...] = (
    (
        "",
        "Application for a scenario. Fill in what is empty or 0; what begins with # and no blank may be left out.",
        "场景申请表。请填写空白或为 0 的各项；行首“#”后无空格的为选填项，需要时去掉“#”。",
    ),
    (
        "",
        "Then: sandbox scenario check FILE, draft FILE, apply FILE.",
        "填写后依次执行：sandbox scenario check、draft、apply。",
    ),
    ("", "Cards and catalogue entries named here lie beside this file.", "名片与目录文件放在本文件同一目录。"),
)

_TOP: tuple[_Row, ...] = (
    ('name = ""', "What the scenario is called.", "场景名称。"),
    ('merchant = ""', "The organisation that applies.", "申请单位（数商、银行等）。"),
    ('#controller = ""', "Who controls it in the end, if anybody else.", "实际控制方；无则不填。"),
    ('purpose = ""', "The purpose; a person's consent must name exactly this.", "使用目的；个人授权须与此一致。"),
    ('operator = ""', "The operator's node.", "运营机构节点编号。"),
    (
        "#computing_parties = []",
        "Nodes that compute and hold no data, e.g. the witness; training needs one.",
        "不持有数据的计算方（如见证节点）；联合训练必填。",
    ),
    (
        "kinds = []",
        "What may run: psi, train, score, aggregate, query, model.",
        "作业种类：psi、train、score、aggregate、query、model。",
    ),
    (
        "valid_days = 0",
        "For how many days; or give not_before and not_after.",
        "有效天数；也可填写 not_before 与 not_after。",
    ),
    ("#not_before = 2030-01-01T00:00:00+08:00", "From when; by default from now.", "生效时间；默认即时生效。"),
    ("#score_step = 5", "Points; scores leave as multiples of this.", "评分出域步长（分）。"),
    ("#models_per_person = 1", "How many models may score one person.", "对同一人评分的模型数上限。"),
    ("#epsilon_milli = 0", "Privacy budget of noisy outputs, in thousandths.", "加噪输出的隐私预算（千分之一）。"),
    ("#bundles = []", "Of models: the merchant's bundles that may run.", "模型作业允许运行的程序包。"),
    (
        '#isolation = ""',
        "The least that must stand around merchant code: confined, unprivileged, narrowed.",
        "商户代码的最低隔离等级。",
    ),
    (
        '#enclave = ""',
        "Of queries and models over an alignment: the owner's node at which both owners' rows meet.",
        "跨方查询与模型：双方数据汇合计算所在的数据方节点。",
    ),
    (
        "#accepts_simulated = false",
        "Whether another owner's rows may enter that enclave, which is simulated.",
        "是否接受他方数据进入该模拟可信执行环境。",
    ),
    (
        "#runtimes = []",
        "Runtimes that may open rows; none: each node's own.",
        "允许解封数据的运行环境度量；不填为各节点自身度量。",
    ),
    (
        "#accepts_two_contributors = false",
        "Whether totals over two owners may leave: each can subtract its own part.",
        "是否接受仅两方参与的汇总（各方可减去自身部分）。",
    ),
    (
        '#amends = ""',
        "Digest of the own earlier scenario in whose place this one comes.",
        "所变更的原场景摘要（64 位十六进制）。",
    ),
)

_TABLES: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        "[outline]",
        (
            ('data_use = ""', "Which data, and why these.", "用什么数：使用哪些数据，为何必要。"),
            ('supply = ""', "How they are supplied: in what form, how often.", "怎样供数：以何种形式、何种频率供数。"),
            ('problem = ""', "Which problem is solved, for whom.", "解决什么问题：为谁解决什么问题。"),
            (
                'category = ""',
                "Under which regime: shared, open, authorised.",
                "类别：shared 共享、open 开放、authorised 授权运营。",
            ),
            (
                'field_of_use = ""',
                "The field of use, e.g. finance, health, transport.",
                "应用领域，如金融、医疗、交通。",
            ),
        ),
    ),
    ("[applicant]", (('card = ""', "The only one who may submit jobs.", "申请人名片；仅其可提交作业。"),)),
    (
        "[recipient]",
        (
            ('node = ""', "The node that seals results; a data owner's.", "接收方所在节点（须为数据提供方）。"),
            ('card = ""', "The only one who can open results.", "结果接收人名片；仅其可打开结果。"),
        ),
    ),
    (
        "[[datasets]]",
        (
            (
                'file = ""',
                "What `sandbox dataset show --json` printed at the owner; one table [[datasets]] for each dataset.",
                "数据方执行 sandbox dataset show --json 所得文件；每个数据集一节。",
            ),
            (
                '#rule = "exact"',
                "exact: this version; same_schema: any of the same schema that is not older than max_age_days.",
                "exact：仅此版本；same_schema：结构相同且不超过 max_age_days 的任一版本。",
            ),
            ("#max_age_days = 0", "Of same_schema; 0: any age.", "版本最长存续天数；0 为不限。"),
            ("key = []", "The columns that say who a row is about.", "主键列。"),
            ("fields = []", "The columns that may enter a computation.", "可参与计算的字段。"),
            ('#label = ""', "The target column of a training.", "训练的目标列。"),
        ),
    ),
    (
        "#[[outputs]]",
        (
            ('#kind = ""', "One table [[outputs]] for everything that may leave.", "每项可出域的结果一节。"),
            ('#name = ""', "What of the kind: docs/cli.md names the examples.", "结果名称，见各示例。"),
            ('#class = ""', "aggregate, report, row_consented, model, noisy.", "结果类别。"),
            ("#min_group = 10", "People; fewer are withheld.", "最小群体人数；不足则不予出域。"),
            ("#round_to = 10", "Counts are rounded to multiples of this.", "计数取整单位。"),
            ("#max_rows = 1", "Rows at most.", "行数上限。"),
            ("#max_bytes = 4096", "Bytes at most.", "字节数上限。"),
            (
                "#top_two = 0",
                "Permille of a total that its two largest may make up; 0: the node's own bound.",
                "最大两项占比上限（千分之）；0 为采用节点设定。",
            ),
            (
                "#remainder = 0",
                "Permille of the largest that all but the two largest must reach; 0: the node's own.",
                "其余各项与最大项之比下限（千分之）；0 为采用节点设定。",
            ),
            (
                "#suppress = false",
                "Whether small cells are left blank; else one withholds the table.",
                "小格是否留空；否则整表不予出域。",
            ),
            ("#reviewed = false", "Whether two people of every other owner look first.", "是否须双人审核。"),
        ),
    ),
    (
        "#[[dimensions]]",
        (
            (
                '#name = ""',
                "How tables of totals are cut; fixed here and not in a job.",
                "汇总表的分组方式；在此固定，作业不得更改。",
            ),
            ('#column = ""', "The column.", "所用字段。"),
            ("#places = 0", "Decimal places of the edges.", "分段边界的小数位数。"),
            (
                "#edges = []",
                "Of numbers: where bands begin; or values = [...] of texts.",
                "数值分段边界；文本则填 values = [...]。",
            ),
        ),
    ),
    (
        "#[[measures]]",
        (
            ('#column = ""', "A column that is summed or averaged.", "参与求和、求均值的字段。"),
            ("#low = 0", "The lower bound; a value outside ends the job.", "取值下限；超出则作业终止。"),
            ("#high = 0", "The upper bound.", "取值上限。"),
            ("#places = 0", "Decimal places that count.", "有效小数位数。"),
        ),
    ),
    (
        "[quota]",
        (
            ("calls_per_day = 0", "Jobs a day, counted at each owner's node.", "每日作业数，在各数据方节点分别计数。"),
            ("calls_total = 0", "Jobs in all.", "作业总数。"),
            ("rows_total = 0", "Rows that enter computations, in all.", "参与计算的行数总量。"),
            ("#rows_per_day = 0", "The same a day; 0: as many as the total allows.", "每日行数；0 为不另设限。"),
            ("#people_per_day = 0", "Different people a day; 0: no bound of its own.", "每日不同人数；0 为不另设限。"),
            ("#people_total = 0", "Different people in all; 0: no bound.", "不同人数总量；0 为不限。"),
        ),
    ),
    (
        "[consent]",
        (
            (
                '#batch = "held_letter"',
                "Where rows of people leave: a signed letter of each is held.",
                "行级结果出域时：持有每人的授权书。",
            ),
            (
                '#single = "token"',
                "Where one person is scored: a signed token a person and call.",
                "单人评分：每人每次一份授权令牌。",
            ),
            ("#issuers = []", "Cards of those whose signature counts under consents.", "授权签发方名片。"),
            (
                "#sources = []",
                "Where consents come from: subject, attested, letter.",
                "授权来源：subject 本人、attested 见证、letter 授权书。",
            ),
            ("#most_uses = 1", "Calls that one consent may serve.", "一份授权可用次数。"),
            (
                "#sample_permille = 5",
                "Of letters: how many are asked for; at least one a batch.",
                "授权书抽查比例（千分之）。",
            ),
            (
                "#letter_days = 14",
                "Within how many days a letter is produced; else the scenario is suspended.",
                "授权书提交期限（天）；逾期暂停场景。",
            ),
        ),
    ),
    (
        "[price]",
        (
            ('tariff = "fujian-2024"', "The tariff.", "计费标准。"),
            ('coefficient = "1"', "A decimal from 0 to 1.", "价格系数，0 至 1。"),
            ("public_good = false", "Free of charge.", "是否公益（免费）。"),
        ),
    ),
)


def write_form(language: str) -> str:
    """Return the form with remarks in a language, ``en`` or ``zh``."""
    parts = [_lines(_HEAD, language), _lines(_TOP, language)]
    parts += [f"{title}\n{_lines(rows, language)}" for title, rows in _TABLES]
    return "\n".join(parts)


def _lines(rows: tuple[_Row, ...], language: str) -> str:
    lines = []
    for line, remark, remark_zh in rows:
        if words := remark_zh if language == "zh" else remark:
            lines.append(f"# {words}\n")
        if line:
            lines.append(f"{line}\n")
    return "".join(lines)
