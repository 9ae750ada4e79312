"""Words for names, values and sentences of the generated repositories."""

from __future__ import annotations

COMMON_WORDS = (
    "apple bat cat dog eel fig gnu hat ink jar kite lamp moon nut owl pear quiz rose sun tea urn van wax "
    "yak zoo level noon radar "
    "stats river stone cloud green tiny bold fast kind light north paper queen table civic apex data "
    "code word list tree bread "
    "chair door eagle frost grape honey iron jelly koala lemon mango night ocean piano quilt rain sugar "
    "tiger uncle violet water "
    "yellow zebra alpha beta gamma delta basket candle dragon forest garden harbor island jacket kettle "
    "ladder marble needle "
    "orange pencil rabbit silver ticket valley window bee ant fox elk red blue pink black white one two "
    "three salt milk rice a b "
    "ab abc abba banana hello world test"
).split()

FIRST_NAMES = (
    "Ada Alan Bea Carl Cleo Dora Elif Emil Finn Grace Hugo Ines Ivan Jana Karl Lena Luis Mara Nils Noor "
    "Olga Omar Pia Raj Rosa Sam Tom Uma Vera Yuki Zoe"
).split()

WORD_SHAPES = (
    "  padded  ", "snake_case_name", "camelCaseName", "kebab-case-name", "UPPER", "MixedCase", "a,b,c",
    "x=1;y=2", "1,2,3", "key: value",
    "path/to/file.txt", "name@example.org", "2024-05-17", "12:30", "a  b", "tab\tbed", "(a(b)c)", "[1, 2]",
    "Hello, World!", "e3b0c4",
    "v1.2.3", "007", "-5", "3.14", "aaabbc", "racecar", "No lemon", "?", " ", "\n", "a\nb", "50%", "a-b_c",
    "C++", "x y z",
)  # fmt: skip

NOUNS = (
    "account address agenda amount angle answer archive area badge balance band basket batch bill bin "
    "block board body bonus book "
    "border box branch bucket budget buffer bundle cabin cache cart case cell chain change channel "
    "chapter charge chart chunk city "
    "class clock code coin color column cost count course credit crew cycle day deck deposit depth desk "
    "digit discount distance "
    "draft edge entry error event factor fare fee field file filter flag flight floor folder form frame "
    "fruit gap gate goal grade "
    "graph grid group guest height hint hour house image index interest invoice item job journey key "
    "label lane layer leaf league "
    "length lesson letter level limit line link loan log margin mark market mask match member menu "
    "message meter mile mode month "
    "move name note offer option order owner pack page part pass path pattern payment peak period person "
    "pixel place plan player "
    "point pool port position post price prize product profile profit queue quota rank rate ratio record "
    "region report request "
    "reserve result reward risk road room route row rule salary sample scale scene schedule score season "
    "seat segment sensor "
    "sequence series session shape share shelf shift signal size slot source span speed stage state "
    "station step stock store story "
    "stream street string sum symbol table tag target task tax team term text ticket tile time title "
    "token tool topic total track "
    "trade train trip turn unit user value vector version view visit vote wage wall ward watch week "
    "weight width window word zone"
).split()

VERBS = (
    "add adjust apply arrange assign balance blend build calc capture check choose classify clean clip "
    "collapse collect combine "
    "compare compress compute convert copy count crop cut decide decode derive describe detect divide "
    "drop encode estimate evaluate "
    "examine expand extract fetch fill filter find fit flatten fold format gather generate get group "
    "handle identify join keep "
    "label limit list locate lookup make map mark mask measure merge mix move normalize number order "
    "pack pad pair parse pick plan "
    "prepare process prune push put rank rate read rebuild reduce refine remove render repair replace "
    "report resolve reverse rotate "
    "round scale scan score search select separate shape shift shorten show shrink sift simplify skip "
    "slice smooth sort split spread "
    "squash stack strip sum summarize swap tally test tidy total trace track transform trim turn unify "
    "unpack update use validate "
    "weigh wrap"
).split()

ADJECTIVES = (
    "active actual all allowed average basic best big bright clean close common current daily deep early "
    "empty even extra fair fast "
    "final first fixed flat free fresh full good half heavy high inner known large last late left light "
    "local long loose low main "
    "major mean middle minor missing mixed nested new next odd old open outer past plain primary pure "
    "quick rare raw ready recent "
    "regular right rough safe second sharp short simple single slow small smart soft sorted spare stable "
    "steep strict strong tall "
    "thin third tight tiny top total unique upper used valid warm weak weekly wide young"
).split()

MODULES = (
    "utils helpers core mathx textops toolbox calc statsx stringy lists shapes shop parsing common ops "
    "funcs misc numbers_util "
    "report inventory billing eventlog orders geometry wordtools app mainlib toolkit basics algos "
    "accounts analysis arrays audit "
    "booking budget cart catalog checks cleaning codes config_tools convert counters dates_util "
    "deliveries engine_room extras figures "
    "filters finance formatting games grades gridtools grouping handlers history intervals items_util "
    "journal keys labels ledger "
    "library_tools limits logic mapping measures menu metrics model names notes numeric office pages "
    "planner players points pricing "
    "process quotes ranking rates records registry rules salaries scores search_tools sequences "
    "series_tools services sorting "
    "stock storage students summary support tables tasks taxes teams terms textkit tickets timing "
    "tracker trades transforms travel "
    "units validators values vectors warehouse weather windows work"
).split()

PACKAGES = (
    "demo toy project_x shopkit sample lab kata minilib service playground box corelib notekit benchlab "
    "storefront acme foo pkg "
    "mypkg appkit backend datakit gamekit mathkit officekit opskit pipeline portal robot school studio "
    "survey tinyapp trackit util_pkg "
    "webshop workbench yard zoo_app farm bank clinic hotel museum garage bakery harbor"
).split()

FOLDERS = (
    "srv workspace work repo repos home/user home/dev home/anna home/sam tmp data opt app code src "
    "projects build mnt/data "
    "home/user/projects home/ci/builds var/lib/jobs usr/src root/code Users/kim/dev "
    "home/user/code/python tmp/work"
).split()
