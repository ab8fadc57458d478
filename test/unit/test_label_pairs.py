"""Every label of every data set and the class that it becomes, for each pair of data sets that is scored.

The tables follow the published ones: SemanticKITTI's learning map, the nuScenes-lidarseg challenge, ScanNet's
benchmark, and the merges of xMUDA (A2D2 and SemanticKITTI) and GIPSO (nuScenes and SemanticKITTI); that of ScanNet and
S3DIS is this package's own.
"""

import numpy as np
import pytest

from ttt_kd_ros.classes import load_classes, load_label_map, load_label_names
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL

# fmt: off
TABLES = {
    ("a2d2", "a2d2_semantickitti"): """
        Car 1: car; Car 2: car; Car 3: car; Car 4: car; Bicycle 1: bike; Bicycle 2: bike; Bicycle 3: bike; Bicycle 4:
        bike; Pedestrian 1: person; Pedestrian 2: person; Pedestrian 3: person; Truck 1: truck; Truck 2: truck; Truck 3:
        truck; Small vehicles 1: bike; Small vehicles 2: bike; Small vehicles 3: bike; Traffic signal 1: other-objects;
        Traffic signal 2: other-objects; Traffic signal 3: other-objects; Traffic sign 1: other-objects; Traffic sign 2:
        other-objects; Traffic sign 3: other-objects; Utility vehicle 1: -; Utility vehicle 2: -; Sidebars:
        other-objects; Speed bumper: other-objects; Curbstone: sidewalk; Solid line: road; Irrelevant signs:
        other-objects; Road blocks: other-objects; Tractor: -; Non-drivable street: -; Zebra crossing: road; Obstacles /
        trash: other-objects; Poles: other-objects; RD restricted area: road; Animals: other-objects; Grid structure:
        other-objects; Signal corpus: other-objects; Drivable cobblestone: road; Electronic traffic: other-objects; Slow
        drive area: road; Nature object: nature; Parking area: parking; Sidewalk: sidewalk; Ego car: car; Painted driv.
        instr.: road; Traffic guide obj.: other-objects; Dashed line: road; RD normal street: road; Sky: -; Buildings:
        building; Blurred area: -; Rain dirt: -
    """,
    ("semantickitti", "a2d2_semantickitti"): """
        unlabeled: -; outlier: -; car: car; bicycle: bike; bus: -; motorcycle: bike; on-rails: -; truck: truck;
        other-vehicle: -; person: person; bicyclist: bike; motorcyclist: bike; road: road; parking: parking; sidewalk:
        sidewalk; other-ground: -; building: building; fence: other-objects; other-structure: -; lane-marking: road;
        vegetation: nature; trunk: nature; terrain: nature; pole: other-objects; traffic-sign: other-objects;
        other-object: other-objects; moving-car: car; moving-bicyclist: bike; moving-person: person
    """,
    ("semantickitti", "semantickitti19"): """
        unlabeled: -; outlier: -; car: car; bicycle: bicycle; bus: other-vehicle; motorcycle: motorcycle; on-rails:
        other-vehicle; truck: truck; other-vehicle: other-vehicle; person: person; bicyclist: bicyclist; motorcyclist:
        motorcyclist; road: road; parking: parking; sidewalk: sidewalk; other-ground: other-ground; building: building;
        fence: fence; other-structure: -; lane-marking: road; vegetation: vegetation; trunk: trunk; terrain: terrain;
        pole: pole; traffic-sign: traffic-sign; other-object: -; moving-car: car; moving-bicyclist: bicyclist;
        moving-person: person
    """,
    ("semantickitti", "nuscenes_semantickitti"): """
        unlabeled: -; outlier: -; car: vehicle; bicycle: -; bus: -; motorcycle: -; on-rails: -; truck: -; other-vehicle:
        -; person: pedestrian; bicyclist: -; motorcyclist: -; road: road; parking: road; sidewalk: sidewalk;
        other-ground: -; building: manmade; fence: manmade; other-structure: -; lane-marking: road; vegetation:
        vegetation; trunk: vegetation; terrain: terrain; pole: manmade; traffic-sign: manmade; other-object: -;
        moving-car: vehicle; moving-bicyclist: -; moving-person: pedestrian
    """,
    ("nuscenes", "nuscenes_semantickitti"): """
        noise: -; animal: -; human.pedestrian.adult: pedestrian; human.pedestrian.child: pedestrian;
        human.pedestrian.construction_worker: pedestrian; human.pedestrian.personal_mobility: pedestrian;
        human.pedestrian.police_officer: pedestrian; human.pedestrian.stroller: pedestrian; human.pedestrian.wheelchair:
        pedestrian; movable_object.barrier: -; movable_object.debris: -; movable_object.pushable_pullable: -;
        movable_object.trafficcone: -; static_object.bicycle_rack: -; vehicle.bicycle: -; vehicle.bus.bendy: -;
        vehicle.bus.rigid: -; vehicle.car: vehicle; vehicle.construction: -; vehicle.emergency.ambulance: -;
        vehicle.emergency.police: vehicle; vehicle.motorcycle: -; vehicle.trailer: -; vehicle.truck: -;
        flat.driveable_surface: road; flat.other: -; flat.sidewalk: sidewalk; flat.terrain: terrain; static.manmade:
        manmade; static.other: -; static.vegetation: vegetation; vehicle.ego: -
    """,
    ("nuscenes", "nuscenes16"): """
        noise: -; animal: -; human.pedestrian.adult: pedestrian; human.pedestrian.child: pedestrian;
        human.pedestrian.construction_worker: pedestrian; human.pedestrian.personal_mobility: -;
        human.pedestrian.police_officer: pedestrian; human.pedestrian.stroller: -; human.pedestrian.wheelchair: -;
        movable_object.barrier: barrier; movable_object.debris: -; movable_object.pushable_pullable: -;
        movable_object.trafficcone: traffic_cone; static_object.bicycle_rack: -; vehicle.bicycle: bicycle;
        vehicle.bus.bendy: bus; vehicle.bus.rigid: bus; vehicle.car: car; vehicle.construction: construction_vehicle;
        vehicle.emergency.ambulance: -; vehicle.emergency.police: -; vehicle.motorcycle: motorcycle; vehicle.trailer:
        trailer; vehicle.truck: truck; flat.driveable_surface: driveable_surface; flat.other: other_flat; flat.sidewalk:
        sidewalk; flat.terrain: terrain; static.manmade: manmade; static.other: -; static.vegetation: vegetation;
        vehicle.ego: -
    """,
    ("scannet", "scannet20"): """
        wall: wall; floor: floor; cabinet: cabinet; bed: bed; chair: chair; sofa: sofa; table: table; door: door;
        window: window; bookshelf: bookshelf; picture: picture; counter: counter; blinds: -; desk: desk; shelves: -;
        curtain: curtain; dresser: -; pillow: -; mirror: -; floor mat: -; clothes: -; ceiling: -; books: -;
        refrigerator: refrigerator; television: -; paper: -; towel: -; shower curtain: shower curtain; box: -;
        whiteboard: -; person: -; night stand: -; toilet: toilet; sink: sink; lamp: -; bathtub: bathtub; bag: -;
        otherstructure: -; otherfurniture: otherfurniture; otherprop: -
    """,
    ("scannet", "s3dis13"): """
        wall: wall; floor: floor; cabinet: -; bed: -; chair: chair; sofa: sofa; table: table; door: door; window:
        window; bookshelf: bookcase; picture: -; counter: -; blinds: -; desk: table; shelves: bookcase; curtain: -;
        dresser: -; pillow: -; mirror: -; floor mat: floor; clothes: -; ceiling: ceiling; books: -; refrigerator: -;
        television: -; paper: -; towel: -; shower curtain: -; box: -; whiteboard: board; person: -; night stand: -;
        toilet: -; sink: -; lamp: -; bathtub: -; bag: -; otherstructure: -; otherfurniture: -; otherprop: -
    """,
    ("s3dis", "s3dis13"): """
        ceiling: ceiling; floor: floor; wall: wall; beam: beam; column: column; window: window; door: door; table:
        table; chair: chair; sofa: sofa; bookcase: bookcase; board: board; clutter: clutter
    """,
    ("s3dis", "scannet20"): """
        ceiling: -; floor: floor; wall: wall; beam: -; column: -; window: window; door: door; table: table; chair:
        chair; sofa: sofa; bookcase: bookshelf; board: -; clutter: -
    """,
}
# fmt: on

PUBLISHED = {"a2d2": 55, "nuscenes": 32, "scannet": 40, "s3dis": 13, "semantickitti": 29}
"""Number of labels of each data set; SemanticKITTI has five more for moving objects, which the reader folds."""


def entries(table):
    return dict(entry.rsplit(": ", 1) for entry in " ".join(table.split()).split("; "))


@pytest.mark.parametrize("pair", TABLES, ids=" to ".join)
def test_every_label_becomes_the_class_of_the_table(pair):
    name, classes = pair[0], load_classes(pair[1])
    ids = {label: i for i, label in load_label_names(name).items()}
    table, expected = load_label_map(name, classes), entries(TABLES[pair])
    found = {label: "-" if table[i] == IGNORE_LABEL else classes.names[table[i]] for label, i in ids.items()}
    assert found == expected
    assert (np.delete(table, list(ids.values())) == IGNORE_LABEL).all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_published_labels_are_listed(name):
    assert len(load_label_names(name)) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("classes", "size"),
    [
        ("scannet20", 20), ("s3dis13", 13), ("nuscenes16", 16), ("semantickitti19", 19), ("a2d2_semantickitti", 10),
        ("nuscenes_semantickitti", 7),
    ],
)  # fmt: skip
def test_class_lists_have_their_published_sizes(classes, size):
    assert len(load_classes(classes).names) == size


@pytest.mark.parametrize("classes", ["a2d2_semantickitti", "nuscenes_semantickitti"])
def test_both_sets_of_an_outdoor_pair_have_every_class(classes):
    for name, other in TABLES:
        if other == classes:
            assert set(entries(TABLES[name, other]).values()) - {"-"} == set(load_classes(classes).names)


def test_a_map_that_takes_what_is_no_label_is_refused(tmp_path):
    (tmp_path / "m.yaml").write_text("labels: {1: road}\nmaps: {street6: {road: [road, rood]}}")
    with pytest.raises(InputError, match="'road' takes rood, which is no label"):
        load_label_map(tmp_path / "m.yaml", load_classes("street6"))
